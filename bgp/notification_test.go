package bgp

import "testing"

func TestDescribeNotification(t *testing.T) {
	for _, test := range []struct {
		body []byte
		want string
	}{
		{[]byte{6, 2}, "Cease/administrative shutdown"},
		{append([]byte{6, 2, 9}, "rebooting"...), `Cease/administrative shutdown ("rebooting")`},
		{append([]byte{6, 4, 200}, "cut short"...), `Cease/administrative reset ("cut short")`},
		{append([]byte{6, 2, 12}, "a\x1b[31mb\nc\xff\""...), `Cease/administrative shutdown ("a [31mb c?\"")`},
		{append([]byte{6, 2, 2}, " \n"...), "Cease/administrative shutdown"},
		{[]byte{6, 3, 5, 1, 2}, "Cease/peer de-configured"},
		{[]byte{6, 10}, "Cease/BFD down"},
		{[]byte{6, 77}, "Cease/subcode 77"},
		{[]byte{6, 0}, "Cease"},
		{[]byte{2, 2}, "OPEN message error/bad peer AS"},
		{[]byte{2, 6}, "OPEN message error/unacceptable hold time"},
		{[]byte{3, 11}, "UPDATE message error/malformed AS_PATH"},
		{[]byte{4, 0}, "hold timer expired"},
		{[]byte{5, 3}, "finite state machine error/unexpected message in established"},
		{[]byte{99, 1}, "NOTIFICATION code 99/1"},
		{[]byte{6}, "truncated NOTIFICATION"},
		{nil, "truncated NOTIFICATION"},
	} {
		if got := describeNotification(test.body); got != test.want {
			t.Errorf("%v: got %s, want %s", test.body, got, test.want)
		}
	}
}
