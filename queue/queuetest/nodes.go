package queuetest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// caughtUpWait bounds the wait for a node's copies after its start.
const caughtUpWait = 60 * time.Second

// membership makes a server process one node of a cluster.
type membership struct {
	Node   string   // its name in the cluster
	Route  string   // where it listens for the others
	Routes []string // where all of them do
}

// startNode runs a server as a node of a cluster, and returns when it has caught
// up with the cluster's own state. The embedded server knows no clusters, hence
// the engine's options.
func (s *settings) startNode() (shutdown func(), err error) {
	opts := &server.Options{
		ServerName: s.Cluster.Node,
		Cluster:    server.ClusterOpts{Name: "queuetest"},

		JetStream:              true,
		StoreDir:               s.Dir,
		JetStreamMaxStore:      10 << 30,
		JetStreamMaxMemory:     1 << 30,
		DisableJetStreamBanner: true,
		NoSigs:                 true,
		NoLog:                  true,
	}
	if opts.Host, opts.Port, err = hostPort(s.Listen); err != nil {
		return nil, err
	}
	if opts.Cluster.Host, opts.Cluster.Port, err = hostPort(s.Cluster.Route); err != nil {
		return nil, err
	}
	for _, addr := range s.Cluster.Routes {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: addr})
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	shutdown = func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		shutdown()
		return nil, errors.New("queuetest: a node of the cluster did not become ready")
	}
	tick := time.NewTicker(clusterPoll)
	defer tick.Stop()
	timeout := time.After(processStart)
	for !srv.JetStreamIsCurrent() {
		select {
		case <-tick.C:
		case <-timeout:
			shutdown()
			return nil, errors.New("queuetest: a node found no leader of its cluster")
		}
	}
	return shutdown, nil
}

// ProcNodes is a cluster of servers, each in a process of its own. Its methods
// are for the test's own goroutine; nodes are numbered from 0.
type ProcNodes struct {
	t     testing.TB
	nodes []settings
	procs []*child // nil = not running
}

// ProcessCluster starts size servers with JetStream that form a cluster, each of
// them the test binary once more, which serves if TestMain calls [MaybeServe].
// Any can be killed and started again at any moment. It returns when all have
// caught up with one leader and it places streams on every one of them.
func ProcessCluster(tb testing.TB, size int) *ProcNodes {
	tb.Helper()
	c := &ProcNodes{t: tb, nodes: make([]settings, size), procs: make([]*child, size)}
	for i := range c.nodes {
		c.nodes[i].Dir = folder(tb)
	}
	tb.Cleanup(c.killAll) // before the folders go
	for range portAttempts {
		c.address()
		err := c.launchAll()
		if err == nil {
			return c
		}
		c.killAll()
		if errors.Is(err, errNotServing) {
			tb.Fatal(err)
		}
		tb.Logf("%v; trying other ports", err)
	}
	tb.Fatal("queuetest: the cluster did not start")
	return nil
}

// address gives every node its ports.
func (c *ProcNodes) address() {
	c.t.Helper()
	routes := make([]string, len(c.nodes))
	for i := range routes {
		routes[i] = freeAddr(c.t)
	}
	for i := range c.nodes {
		c.nodes[i].Listen = freeAddr(c.t)
		c.nodes[i].Cluster = &membership{Node: fmt.Sprintf("node-%d", i), Route: routes[i], Routes: routes}
	}
}

// launchAll starts the nodes together: none has a leader without a majority.
func (c *ProcNodes) launchAll() error {
	for i := range c.nodes {
		var err error
		if c.procs[i], err = spawn(c.nodes[i]); err != nil {
			return err
		}
	}
	for i := range c.procs {
		if err := c.ready(i); err != nil {
			return err
		}
	}
	return c.placeable()
}

// placeable returns when a stream with a copy on every node can be made: for a
// moment after the election the leader takes a node for offline that it has not
// heard from yet.
func (c *ProcNodes) placeable() error {
	conn, err := nats.Connect(c.URL())
	if err != nil {
		return fmt.Errorf("queuetest: connect to the cluster: %w", err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("queuetest: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), processStart)
	defer cancel()
	tick := time.NewTicker(clusterPoll)
	defer tick.Stop()
	const name = "QUEUETEST"
	for {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Replicas: len(c.nodes), Storage: jetstream.MemoryStorage})
		if err == nil {
			return js.DeleteStream(ctx, name)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("queuetest: the cluster takes no stream of %d copies: %w", len(c.nodes), err)
		}
	}
}

func (c *ProcNodes) ready(i int) error {
	err := c.procs[i].ready()
	if err != nil {
		c.procs[i] = nil
	}
	return err
}

// Size is the number of nodes, those that do not run included.
func (c *ProcNodes) Size() int { return len(c.nodes) }

// URL lists every node, so that a client finds a running one.
func (c *ProcNodes) URL() string {
	urls := make([]string, len(c.nodes))
	for i := range c.nodes {
		urls[i] = c.NodeURL(i)
	}
	return strings.Join(urls, ",")
}

// NodeURL is one node's own address; it stays the same over a restart.
func (c *ProcNodes) NodeURL(i int) string { return "nats://" + c.nodes[i].Listen }

// NodeName is one node's name, by which the server calls it as a leader.
func (c *ProcNodes) NodeName(i int) string { return c.nodes[i].Cluster.Node }

// Options are empty: the cluster asks for no credentials.
func (c *ProcNodes) Options() []nats.Option { return nil }

// Kill ends one node with SIGKILL and waits until it is gone; harmless if it
// does not run.
func (c *ProcNodes) Kill(i int) {
	if c.procs[i] != nil {
		c.procs[i].kill()
		c.procs[i] = nil
	}
}

// Start runs a node again on its ports and its folder, and returns when it has
// caught up with the cluster's own state; see CaughtUp for the streams. The
// others must be enough for a majority.
func (c *ProcNodes) Start(i int) {
	c.t.Helper()
	if c.procs[i] != nil {
		return
	}
	var err error
	if c.procs[i], err = spawn(c.nodes[i]); err == nil {
		err = c.ready(i)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// CaughtUp waits until every stream has a leader and all its copies are up to
// date, so that the next node may be lost.
func (c *ProcNodes) CaughtUp(js jetstream.JetStream) {
	c.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(caughtUpWait)
	for {
		err := caughtUp(c.t.Context(), js)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			c.t.Fatalf("queuetest: the cluster has not caught up after %v: %v", caughtUpWait, err)
		}
	}
}

func caughtUp(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		if info.Cluster == nil || info.Cluster.Leader == "" {
			return fmt.Errorf("stream %s has no leader", info.Config.Name)
		}
		if len(info.Cluster.Replicas) != info.Config.Replicas-1 {
			return fmt.Errorf("stream %s has %d copies beside its leader's, not %d", info.Config.Name, len(info.Cluster.Replicas), info.Config.Replicas-1)
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Offline {
				return fmt.Errorf("the copy of stream %s on %s is behind", info.Config.Name, r.Name)
			}
		}
	}
	return streams.Err()
}

func (c *ProcNodes) killAll() {
	for i := range c.procs {
		c.Kill(i)
	}
}
