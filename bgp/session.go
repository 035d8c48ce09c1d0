package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// redialInterval passes from one call to the next, give or take a
	// quarter, so that hosts started together do not stay in step.
	redialInterval = time.Second
	// redialMaximum is what that grows to while one side refuses the other, or
	// ends a session before it has lasted for stableTime: something is wrong
	// that waiting does not heal, and each attempt is lines in two logs.
	redialMaximum = 5 * time.Second
	stableTime    = 30 * time.Second
	// openTimeout bounds how long a connection may take to become a session.
	// RFC 4271 section 8.2.2 suggests 4 minutes; the peers are next door.
	openTimeout = 10 * time.Second
	// closeTimeout bounds how long GoBGP may take to say goodbye. It gives a
	// write 1 s.
	closeTimeout = 3 * time.Second
	// defaultHoldTime is the one of RFC 4271 section 10.
	defaultHoldTime = 90 * time.Second
)

// session keeps one peer connected until it is stopped.
type session struct {
	server   *gobgp
	siblings *siblings
	changed  func()
	address  netip.Addr
	as       uint32
	external bool
	// accepted takes a connection that the peer opened.
	accepted chan call
	// poked has an element after peer has changed.
	poked chan struct{}

	cancel context.CancelCauseFunc
	ended  chan struct{}
	// looking are the goroutines that look at calls.
	looking sync.WaitGroup

	mu       sync.Mutex
	log      *slog.Logger // has peer= and address=
	peer     Peer
	state    string
	since    time.Time
	outage   time.Time // since when the session is not up
	last     string    // why it is not
	families []bgp.Family
	current  *connection // while one lasts
	restart  restart
	ctx      context.Context // until stop
	// told are the reasons that were logged since the session was up.
	told map[string]bool
	// calls are those of the peer that are looked at. callsLeft more may be,
	// since the time called.
	calls     int
	callsLeft float64
	called    time.Time
	// keeps is how long the peer has agreed to keep the routes.
	keeps time.Duration
}

func newSession(server *gobgp, siblings *siblings, log *slog.Logger, changed func(), p Peer, external bool) *session {
	now := time.Now()
	return &session{
		server:   server,
		siblings: siblings,
		log:      log,
		changed:  changed,
		address:  p.Address,
		as:       p.AS,
		peer:     p,
		external: external,
		accepted: make(chan call),
		poked:    make(chan struct{}, 1),
		ended:    make(chan struct{}),
		state:    p.resting(),
		since:    now,
		outage:   now,
		last:     p.waiting(),
	}
}

func (s *session) start() {
	ctx, cancel := context.WithCancelCause(context.Background())
	s.mu.Lock()
	s.ctx, s.cancel = ctx, cancel
	s.mu.Unlock()
	go func() {
		defer close(s.ended)
		s.run(ctx)
	}()
}

// stop ends the session and returns when GoBGP has forgotten the peer.
func (s *session) stop(cause error) {
	s.mu.Lock()
	s.cancel(cause) // under mu, after which nothing is looked at any more
	s.mu.Unlock()
	<-s.ended
	s.looking.Wait()
}

// run connects and serves, again and again.
func (s *session) run(ctx context.Context) {
	interval := redialInterval
	var tcp call
	for {
		begun := time.Now()
		var err error
		if tcp.TCPConn == nil {
			tcp, err = s.connect(ctx)
		}
		refused := false
		switch {
		case ctx.Err() != nil:
			if tcp.TCPConn != nil {
				_ = tcp.Close()
			}
			s.set(stateIdle)
			return
		case errors.Is(err, errPoked):
			continue
		case err != nil:
			s.down(slog.LevelWarn, err.Error())
		default:
			refused = s.serve(ctx, tcp)
			begun = time.Now()
		}
		if !refused {
			interval = redialInterval
		}
		pause := time.Duration((0.75 + rand.Float64()/2) * float64(interval))
		if refused {
			interval = min(interval*2, redialMaximum)
		}
		tcp = s.wait(ctx, pause-time.Since(begun))
	}
}

// errPoked is why connect did not connect: the peer is another one now.
var errPoked = errors.New("the peer has changed")

// connect calls the peer, or takes the call of the peer where that comes first.
func (s *session) connect(ctx context.Context) (call, error) {
	peer := s.configured()
	if peer.Passive {
		s.set(stateActive)
		select {
		case tcp := <-s.accepted:
			return tcp, nil
		case <-s.poked:
			return call{}, errPoked
		case <-ctx.Done():
			return call{}, context.Cause(ctx)
		}
	}
	s.set(stateConnect)
	type result struct {
		tcp *net.TCPConn
		err error
	}
	dialing, cancel := context.WithCancel(ctx)
	defer cancel()
	called := make(chan result, 1)
	go func() {
		tcp, err := dial(dialing, peer, s.external)
		called <- result{tcp, err}
	}()
	select {
	case r := <-called:
		return call{TCPConn: r.tcp}, r.err
	case tcp := <-s.accepted:
		cancel()
		if r := <-called; r.tcp != nil {
			_ = r.tcp.Close()
		}
		return tcp, nil
	}
}

// wait passes the time until the next call, which the peer's own call ends, and
// a change of the peer.
func (s *session) wait(ctx context.Context, d time.Duration) call {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-s.poked:
	case tcp := <-s.accepted:
		return tcp
	}
	return call{}
}

// serve has GoBGP speak over one connection until that ends or the session is
// stopped. It reports whether one side refused the other, be it after the OPEN
// or after a short session.
//
// GoBGP knows the peer for only as long. So its own timers, which hold a peer
// back for 5 s after each failure, never come into play.
func (s *session) serve(ctx context.Context, tcp call) (refused bool) {
	peer := s.configured()
	hold := peer.HoldTime
	if hold == 0 {
		hold = defaultHoldTime
	}
	var source *source
	if peer.Siblings {
		local := tcp.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
		source = s.siblings.open(peer.Address, local, peer.PrefixLimit, s.log)
		defer s.siblings.close(source)
	}
	c := newConnection(tcp.TCPConn, s.as, hold, source)
	c.replay(tcp.open)
	c.offer = s.offer(peer)
	defer s.letGo()
	if err := s.hold(c); err != nil {
		_ = c.Close()
		s.down(slog.LevelWarn, err.Error())
		return false
	}
	if err := s.server.AddPeer(ctx, &api.AddPeerRequest{Peer: neighbor(peer, hold)}); err != nil {
		_ = c.Close()
		s.down(slog.LevelWarn, fmt.Sprintf("adding the peer to GoBGP: %v", err))
		return false
	}
	opening := time.NewTimer(openTimeout)
	defer opening.Stop()
	defer s.release(c)
	if err := s.hand(c); err != nil {
		s.down(slog.LevelWarn, err.Error())
		return false
	}
	var established time.Time
	progress := func() {
		state, families := c.progress()
		switch {
		case state == stateEstablished && established.IsZero():
			established = time.Now()
			opening.Stop()
			c.source.began(s.up(families), c.identified())
		case state == stateOpenSent, state == stateOpenConfirm:
			s.set(state)
		}
	}
	for {
		select {
		case <-c.poked:
			progress()
		case <-c.done:
			progress() // a session may be over before it was looked at
			s.down(slog.LevelWarn, c.reason())
			return c.opened() && (established.IsZero() || time.Since(established) < stableTime)
		case <-opening.C:
			c.end(fmt.Sprintf("peer did not complete the session within %s", openTimeout))
			_ = c.Close()
		case <-ctx.Done():
			if cause := context.Cause(ctx); errors.Is(cause, errAbandoned) {
				c.abandon()
			} else if !established.IsZero() {
				s.farewell(cause)
				await(c.done, closeTimeout)
			}
			s.release(c)
			if !established.IsZero() {
				s.down(slog.LevelInfo, c.reason())
			}
			return false
		}
	}
}

// farewell tells the peer that the session ends, and why. It is sent by another
// goroutine; where that fails, release says goodbye in its own words.
func (s *session) farewell(cause error) {
	switch {
	case errors.Is(cause, errShutdown):
		_ = s.server.ShutdownPeer(context.Background(), &api.ShutdownPeerRequest{
			Address: s.address.String(), Communication: cause.Error()})
	case errors.Is(cause, errRemoved):
		s.remove()
	default:
		_ = s.server.ResetPeer(context.Background(), &api.ResetPeerRequest{
			Address: s.address.String(), Communication: cause.Error()})
	}
}

// neighbor is the peer as GoBGP is told of it.
func neighbor(p Peer, hold time.Duration) *api.Peer {
	var carried []*api.AfiSafi
	for _, f := range families {
		if p.carries(f) {
			carried = append(carried, &api.AfiSafi{
				Config: &api.AfiSafiConfig{
					Family: &api.Family{Afi: api.Family_Afi(f.Afi()), Safi: api.Family_Safi(f.Safi())}, Enabled: true},
				AddPaths: &api.AddPaths{Config: &api.AddPathsConfig{Receive: p.Siblings}},
			})
		}
	}
	return &api.Peer{
		GracefulRestart: askToKeep(p, carried),
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(),
			PeerAsn:         p.AS,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:          uint64(hold / time.Second),
			KeepaliveInterval: uint64(max(1, hold/time.Second/3)),
		}},
		Transport: &api.Transport{PassiveMode: true}, // the connection comes from here
		AfiSafis:  carried,
	}
}

// hand gives GoBGP the connection. A peer that was just added is idle for some
// microseconds, and would have the connection closed; so wait until it is
// active, which takes one look or two.
func (s *session) hand(c *connection) error {
	deadline := time.Now().Add(closeTimeout)
	for {
		ready := false
		if err := s.server.ListPeer(context.Background(), &api.ListPeerRequest{Address: s.address.String()}, func(p *api.Peer) {
			ready = p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ACTIVE
		}); err != nil {
			return fmt.Errorf("asking GoBGP about the peer: %w", err)
		}
		if ready {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("GoBGP did not take the connection within %s", closeTimeout)
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case s.server.connections <- c:
		return nil
	case <-time.After(closeTimeout):
		return fmt.Errorf("GoBGP did not take the connection within %s", closeTimeout)
	}
}

// release takes the peer from GoBGP again. GoBGP says goodbye with a Cease
// where there is a session, and closes the connection. It is safe to call
// twice.
func (s *session) release(c *connection) {
	s.remove()
	await(c.done, closeTimeout)
	_ = c.Close()
}

// remove has GoBGP forget the peer.
func (s *session) remove() {
	// That the peer is not known is the only error, and what is wanted.
	_ = s.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: s.address.String()})
}

// await waits for a channel to be closed, for no longer than d.
func await(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
