package l4

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// sender sends messages to the kernel in one go and returns, for each of them,
// the error that the kernel answered with. The other error is that of the
// sending itself: then nobody knows what was done. A test replaces it.
type sender interface {
	send(batch []netlink.Message) (answers []error, err error)
}

// wire is a netlink socket to IPVS.
type wire struct {
	conn   *netlink.Conn
	family netlink.HeaderType
}

// answerTimeout bounds the wait for the kernel's answer. The kernel has carried
// out all messages, and queued its answers, when the sending returns.
const answerTimeout = 5 * time.Second

func openWire() (*wire, error) {
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	family, err := genetlink.NewConn(conn).GetFamily("IPVS")
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("looking up the netlink family IPVS: %w", err)
	}
	// An error is answered without the message that it is about, so that the
	// answers to a batch fit into the socket's buffer. Kernels without that
	// option work too.
	_ = conn.SetOption(netlink.CapAcknowledge, true)
	return &wire{conn: conn, family: netlink.HeaderType(family.ID)}, nil
}

// send asks for an acknowledgement of the last message only. The kernel carries
// out the messages in order, goes on after one that fails, and answers those
// that fail in any case (af_netlink.c, netlink_rcv_skb); so when the last
// answer is read, all are.
func (w *wire) send(batch []netlink.Message) (answers []error, err error) {
	answers = make([]error, len(batch))
	for i := range batch {
		batch[i].Header.Type = w.family
		batch[i].Header.Flags = netlink.Request
	}
	last := len(batch) - 1
	batch[last].Header.Flags |= netlink.Acknowledge
	if err := w.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	sent, err := w.conn.SendMessages(batch)
	if err != nil {
		return nil, err
	}
	index := make(map[uint32]int, len(sent))
	for i, m := range sent {
		index[m.Header.Sequence] = i
	}
	// An answer to an earlier batch, whose reading failed, is passed over.
	for {
		acks, err := w.conn.Receive()
		var refused *netlink.OpError
		if errors.As(err, &refused) && refused.Sequence != 0 {
			i, ours := index[refused.Sequence]
			if ours {
				answers[i] = err
			}
			if ours && i == last {
				return answers, nil
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, ack := range acks {
			if i, ours := index[ack.Header.Sequence]; ours && i == last {
				return answers, nil
			}
		}
	}
}

func (w *wire) close() error { return w.conn.Close() }
