package bgp

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// notificationWords names the codes of a NOTIFICATION, RFC 4271 section 4.5,
// and under them the subcodes.
var notificationWords = map[uint8]struct {
	code     string
	subcodes map[uint8]string
}{
	bgp.BGP_ERROR_MESSAGE_HEADER_ERROR: {"message header error", map[uint8]string{
		1: "connection not synchronized",
		2: "bad message length",
		3: "bad message type",
	}},
	bgp.BGP_ERROR_OPEN_MESSAGE_ERROR: {"OPEN message error", map[uint8]string{
		1: "unsupported version number",
		2: "bad peer AS",
		3: "bad BGP identifier",
		4: "unsupported optional parameter",
		6: "unacceptable hold time",
		7: "unsupported capability", // RFC 5492
		8: "role mismatch",          // RFC 9234
	}},
	bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR: {"UPDATE message error", map[uint8]string{
		1:  "malformed attribute list",
		2:  "unrecognized well-known attribute",
		3:  "missing well-known attribute",
		4:  "attribute flags error",
		5:  "attribute length error",
		6:  "invalid ORIGIN attribute",
		8:  "invalid NEXT_HOP attribute",
		9:  "optional attribute error",
		10: "invalid network field",
		11: "malformed AS_PATH",
	}},
	bgp.BGP_ERROR_HOLD_TIMER_EXPIRED: {"hold timer expired", nil},
	bgp.BGP_ERROR_FSM_ERROR: {"finite state machine error", map[uint8]string{ // RFC 6608
		1: "unexpected message in opensent",
		2: "unexpected message in openconfirm",
		3: "unexpected message in established",
	}},
	bgp.BGP_ERROR_CEASE: {"Cease", map[uint8]string{ // RFC 4486
		1:  "maximum number of prefixes reached",
		2:  "administrative shutdown",
		3:  "peer de-configured",
		4:  "administrative reset",
		5:  "connection rejected",
		6:  "other configuration change",
		7:  "connection collision resolution",
		8:  "out of resources",
		9:  "hard reset", // RFC 8538
		10: "BFD down",   // RFC 9384
	}},
	bgp.BGP_ERROR_ROUTE_REFRESH_MESSAGE_ERROR: {"ROUTE-REFRESH message error", nil},
	8: {"send hold timer expired", nil}, // RFC 9687
}

// describeNotification says in words what the body of a NOTIFICATION says in
// numbers, with the text of the peer's operator where there is one (RFC 9003).
func describeNotification(body []byte) string {
	if len(body) < 2 {
		return "truncated NOTIFICATION"
	}
	code, subcode, data := body[0], body[1], body[2:]
	words, known := notificationWords[code]
	if !known {
		return fmt.Sprintf("NOTIFICATION code %d/%d", code, subcode)
	}
	s := words.code
	if sub, ok := words.subcodes[subcode]; ok {
		s += "/" + sub
	} else if subcode != 0 {
		s += fmt.Sprintf("/subcode %d", subcode)
	}
	if code == bgp.BGP_ERROR_CEASE &&
		(subcode == bgp.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN || subcode == bgp.BGP_ERROR_SUB_ADMINISTRATIVE_RESET) {
		if text := shutdownCommunication(data); text != "" {
			s += fmt.Sprintf(" (%q)", text)
		}
	}
	return s
}

// shutdownCommunication is the text that RFC 9003 puts into a shutdown: a
// length in one byte, then UTF-8. It comes from outside and ends up in logs
// and terminals, so only what can be printed stays.
func shutdownCommunication(data []byte) string {
	if len(data) == 0 {
		return ""
	}
	n := min(int(data[0]), len(data)-1)
	text := strings.ToValidUTF8(string(data[1:1+n]), "?")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text))
}
