package lab

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
)

func serveTemporary(l net.Listener, kind ServerKind, host, file string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if kind == Agent {
				b, _ := os.ReadFile(file)
				c.Write(b)
				return
			}
			r := bufio.NewReader(c)
			_, _ = r.ReadString('\n')
			for {
				_, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s\n", len(host)+1, host)
			}
		}()
	}
}
