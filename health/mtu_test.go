package health

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// throughCheck is a check through the tunnel to the first target.
func throughCheck() Check {
	return Check{
		HTTP: "/", Port: 80, ExpectStatus: []int{200}, Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3,
		Through: &Through{VIP: netip.MustParseAddr("198.51.100.1"), Source: netip.MustParseAddr("192.0.2.1"), Mark: 11},
	}
}

// mtuAnswers are the words that the tables below use.
var mtuAnswers = map[string]mtuAnswer{
	"fits":    mtuFits(1500),
	"too-big": {state: MTUFailed, certain: true, words: "too big"},
	"lost":    {state: MTUFailed, words: "lost"},
	"untold":  mtuUntold("no telling"),
}

// TestMTUStates reads left to right, with fall 3.
func TestMTUStates(t *testing.T) {
	for _, tt := range []struct{ answers, want string }{
		{"fits", "ok"},
		{"too-big", "failed"},
		{"untold", "unknown"},
		{"fits too-big fits", "ok failed ok"},
		{"fits lost lost fits lost lost lost", "ok ok ok ok ok ok failed"},
		{"lost lost lost", "unknown unknown failed"},
		{"fits lost untold lost lost", "ok ok ok ok failed"},
		{"fits untold untold fits untold untold untold", "ok ok ok ok ok ok unknown"},
		{"too-big lost lost", "failed failed failed"},
		{"too-big untold untold lost untold untold untold", "failed failed failed failed failed failed unknown"},
		{"untold untold untold fits", "unknown unknown unknown ok"},
	} {
		t.Run(tt.answers, func(t *testing.T) {
			var s Status
			var got []string
			at := time.Unix(0, 0)
			for _, word := range strings.Fields(tt.answers) {
				before := s
				at = at.Add(time.Second)
				s = s.nextMTU(mtuAnswers[word], throughCheck(), at)
				if changed := s.MTU != before.MTU; changed != s.MTUSince.Equal(at) {
					t.Errorf("%s: since %v at %v, changed %v", word, s.MTUSince, at, changed)
				}
				// What does not count does not change the words either.
				want := mtuAnswers[word].words
				if word == "untold" && s.MTU != MTUUnknown {
					want = before.MTUAnswer
				}
				if s.MTUAnswer != want {
					t.Errorf("%s: the answer reads %q, want %q", word, s.MTUAnswer, want)
				}
				got = append(got, s.MTU.String())
			}
			if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMTURequired: only then, and only where a pass is in question.
func TestMTURequired(t *testing.T) {
	required, direct := throughCheck(), throughCheck()
	required.MTURequired, direct.MTURequired = true, true
	direct.Through = nil
	for _, tt := range []struct {
		name   string
		check  Check
		mtu    MTUState
		answer string
		want   Verdict
	}{
		{"not required", throughCheck(), MTUFailed, "pass", Pass},
		{"required", required, MTUFailed, "pass", Fail},
		{"required and there is room", required, MTUOK, "pass", Pass},
		{"required and not known", required, MTUUnknown, "pass", Pass},
		{"required and draining", required, MTUFailed, "drain", Drain},
		{"without a tunnel", direct, MTUFailed, "pass", Pass},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Status{MTU: tt.mtu, MTUAnswer: "too big"}
			got := s.withMTU(verdicts[tt.answer], tt.check)
			if got.Verdict != tt.want {
				t.Errorf("verdict %v, want %v", got.Verdict, tt.want)
			}
			if tt.want == Fail && got.Words != "too big" {
				t.Errorf("words %q, want those of the MTU", got.Words)
			}
		})
	}
}

// TestMTUWords names sizes that help.
func TestMTUWords(t *testing.T) {
	four := Target{Addr: netip.MustParseAddr("192.0.2.139")}
	six := Target{Addr: netip.MustParseAddr("2001:db8:2::8b")}
	through4 := &Through{VIP: netip.MustParseAddr("198.51.100.1")}
	through6 := &Through{VIP: netip.MustParseAddr("2001:db8:1::1")}
	for _, tt := range []struct{ name, got, want string }{
		{"IPv4", mtuTooBig(1500, 1480, four, through4).words,
			"full-size packets (1500 bytes) do not get through the tunnel, which carries 1480; raise the underlay's MTU to 1520 or lower advmss on the LB7 to 1440"},
		{"IPv6 in IPv6", mtuTooBig(1500, 1460, six, through6).words,
			"full-size packets (1500 bytes) do not get through the tunnel, which carries 1460; raise the underlay's MTU to 1540 or lower advmss on the LB7 to 1400"},
		{"IPv6 in IPv4", mtuTooBig(1500, 1480, four, through6).words,
			"full-size packets (1500 bytes) do not get through the tunnel, which carries 1480; raise the underlay's MTU to 1520 or lower advmss on the LB7 to 1420"},
		{"a router that names no size", mtuTooBig(1500, 0, four, through4).words,
			"full-size packets (1500 bytes) do not get through the tunnel; raise the underlay's MTU to 1520 or lower advmss on the LB7"},
		{"GUE", mtuLost(1500, four, &Through{VIP: through4.VIP, Overhead: 32}).words,
			"full-size packets (1500 bytes) get lost in the tunnel; does the underlay carry 1532 bytes all the way? else lower advmss on the LB7"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, tt.got, tt.want)
		}
	}
	for _, tt := range []struct {
		through   *Through
		mss, want int
	}{
		{through4, 1460, 1500}, {through4, 1440, 1480}, {through4, 8960, 1500},
		{through6, 1440, 1500}, {through6, 1400, 1460}, {through6, 8940, 1500},
		{&Through{VIP: through4.VIP, MTU: 9000}, 8960, 9000},
	} {
		if got := tt.through.full(tt.mss); got != tt.want {
			t.Errorf("a full-size packet to %s with MSS %d has %d bytes, want %d", tt.through.VIP, tt.mss, got, tt.want)
		}
	}
}

// fills notes when full-size packets were asked for.
type fills struct {
	mu    sync.Mutex
	at    []time.Duration
	epoch time.Time
	ans   string
}

func (f *fills) fill(_ context.Context, _ Target, _ Check, mss int) mtuAnswer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = append(f.at, time.Since(f.epoch))
	return mtuAnswers[f.ans]
}

func (f *fills) answer(word string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ans = word
}

// taken are the times so far, in seconds, and forgets them.
func (f *fills) taken() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := ""
	for _, at := range f.at {
		s += fmt.Sprintf("%.1f ", at.Seconds())
	}
	f.at = nil
	return strings.TrimSpace(s)
}

// TestMTUTimetable follows one target: when full-size packets are asked for, what
// the log says, and that the check itself keeps its time.
func TestMTUTimetable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing bool
		var mu sync.Mutex
		fail := func(on bool) { mu.Lock(); failing = on; mu.Unlock() }
		d := &diary{answer: func(context.Context, Target, int) Answer {
			mu.Lock()
			defer mu.Unlock()
			if failing {
				return verdicts["fail"]
			}
			return verdicts["pass"]
		}}
		f := &fills{epoch: time.Now(), ans: "fits"}
		var log bytes.Buffer
		o := observe(t, d, nil)
		o.fill, o.offset = f.fill, 0
		o.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		o.Set(map[Target]Check{target(0): throughCheck()})
		until := func(second float64, want string) {
			t.Helper()
			time.Sleep(time.Duration(second*float64(time.Second)) - time.Since(f.epoch))
			synctest.Wait()
			if got := f.taken(); got != want {
				t.Errorf("until second %v asked at %q, want %q", second, got, want)
			}
		}
		// With the first pass, and then with each tenth interval.
		until(25.5, "0.0 10.0 20.0")
		f.answer("too-big")
		until(39.5, "30.0 33.0 36.0 39.0")
		f.answer("fits")
		until(61.5, "42.0 52.0")
		f.answer("lost") // three times, until it counts
		until(71.5, "62.0 65.0 68.0 71.0")
		fail(true)
		until(80.5, "")
		fail(false)
		f.answer("fits")
		until(85.5, "81.0 84.0")
		o.Close()

		const want = `level=INFO msg="member up" pool=lb7 member=lb7-0 address=192.0.2.0 was=unknown after=0s answer="200 OK in 1ms"
level=WARN msg="member lacks room for full-size packets" pool=lb7 member=lb7-0 address=192.0.2.0 answer="too big"
level=INFO msg="member no longer lacks room for full-size packets" pool=lb7 member=lb7-0 address=192.0.2.0 after=12s answer="full-size packets (1500 bytes) get through"
level=WARN msg="member lacks room for full-size packets" pool=lb7 member=lb7-0 address=192.0.2.0 answer=lost
level=WARN msg="member down" pool=lb7 member=lb7-0 address=192.0.2.0 was=up after=1m14s answer="connection refused"
level=INFO msg="member no longer lacks room for full-size packets" pool=lb7 member=lb7-0 address=192.0.2.0 after=13s answer="full-size packets (1500 bytes) get through"
level=INFO msg="member up" pool=lb7 member=lb7-0 address=192.0.2.0 was=down after=8s answer="200 OK in 1ms"
`
		if diff := cmp.Diff(want, log.String()); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

// TestMTURequiredKeepsATargetDown from its first answer on, and lets it up soon
// after there is room.
func TestMTURequiredKeepsATargetDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fills{epoch: time.Now(), ans: "too-big"}
		o := observe(t, &diary{}, nil)
		o.fill, o.offset = f.fill, 0
		check := throughCheck()
		check.MTURequired = true
		o.Set(map[Target]Check{target(0): check})
		time.Sleep(time.Minute + 500*time.Millisecond)
		if s := o.Statuses()[target(0)]; s.State != Down || s.Successes != 0 || s.LastAnswer != "too big" {
			t.Errorf("the target is %+v, want down all along", s)
		}
		f.answer("fits")
		time.Sleep(mtuAgain + time.Duration(check.Rise)*check.Interval)
		if s := o.Statuses()[target(0)]; s.State != Up || s.MTU != MTUOK {
			t.Errorf("the target is %+v, want up", s)
		}
		// Nothing of it stays when the check goes another way.
		check.Through = nil
		o.Set(map[Target]Check{target(0): check})
		time.Sleep(2 * check.Interval)
		if s := o.Statuses()[target(0)]; s.State != Up || s.MTU != MTUUnknown || s.MTUAnswer != "" || !s.MTUSince.IsZero() {
			t.Errorf("checked directly, the target is %+v, want nothing about the MTU", s)
		}
		o.Close()
	})
}
