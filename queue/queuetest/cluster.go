package queuetest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// clusterWait bounds the wait for a leader. An election after an unclean
	// loss takes 4 to 9 s in the server.
	clusterWait = 60 * time.Second
	clusterPoll = 5 * time.Millisecond
)

// Nodes is a cluster of servers inside the test's process. Its methods are for
// the test's own goroutine; nodes are numbered from 0.
type Nodes struct {
	t    testing.TB
	opts []*server.Options
	srvs []*server.Server // nil = stopped
}

// Cluster starts size servers with JetStream that form a cluster, so that a
// stream may have up to size replicas. It returns when they have a leader and
// know each other.
func Cluster(tb testing.TB, size int) *Nodes {
	tb.Helper()
	dirs := make([]string, size)
	for i := range dirs {
		dirs[i] = folder(tb)
	}
	for range portAttempts {
		c, err := newCluster(tb, dirs)
		if err == nil {
			return c
		}
		tb.Logf("queuetest: %v; trying other ports", err)
	}
	tb.Fatal("queuetest: the cluster did not start")
	return nil
}

func newCluster(tb testing.TB, dirs []string) (*Nodes, error) {
	tb.Helper()
	c := &Nodes{t: tb, srvs: make([]*server.Server, len(dirs))}
	tb.Cleanup(c.stopAll)
	var routes []*url.URL
	for i, dir := range dirs {
		host, client := splitAddr(tb, freeAddr(tb))
		_, route := splitAddr(tb, freeAddr(tb))
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: net.JoinHostPort(host, strconv.Itoa(route))})
		c.opts = append(c.opts, &server.Options{
			ServerName: fmt.Sprintf("node-%d", i),
			Host:       host,
			Port:       client,
			Cluster:    server.ClusterOpts{Name: "queuetest", Host: host, Port: route},

			JetStream:              true,
			StoreDir:               dir,
			JetStreamMaxStore:      10 << 30,
			JetStreamMaxMemory:     1 << 30,
			DisableJetStreamBanner: true,
			NoSigs:                 true,
			NoLog:                  true,
		})
	}
	for i := range c.opts {
		c.opts[i].Routes = routes
		if err := c.launch(i); err != nil {
			c.stopAll()
			return nil, err
		}
	}
	c.waitReady()
	return c, nil
}

func splitAddr(tb testing.TB, addr string) (host string, port int) {
	tb.Helper()
	host, port, err := hostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	return host, port
}

func hostPort(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	return host, port, err
}

func (c *Nodes) launch(i int) error {
	srv, err := server.NewServer(c.opts[i].Clone()) // a server writes into its options
	if err != nil {
		return err
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return errors.New("a node of the cluster did not become ready")
	}
	c.srvs[i] = srv
	return nil
}

// waitReady returns when a leader knows every node and every running node has
// caught up with it.
func (c *Nodes) waitReady() {
	c.t.Helper()
	tick := time.NewTicker(clusterPoll)
	defer tick.Stop()
	timeout := time.After(clusterWait)
	for !c.ready() {
		select {
		case <-tick.C:
		case <-timeout:
			c.t.Fatalf("queuetest: the cluster has no leader after %v", clusterWait)
		}
	}
}

func (c *Nodes) ready() bool {
	led := false
	for _, srv := range c.srvs {
		if srv == nil {
			continue
		}
		if !srv.JetStreamIsCurrent() {
			return false
		}
		led = led || srv.JetStreamIsLeader() && len(srv.JetStreamClusterPeers()) == len(c.srvs)
	}
	return led
}

// Size is the number of nodes, stopped ones included.
func (c *Nodes) Size() int { return len(c.srvs) }

// URL lists every node, so that a client finds a running one.
func (c *Nodes) URL() string {
	urls := make([]string, len(c.opts))
	for i := range c.opts {
		urls[i] = c.NodeURL(i)
	}
	return strings.Join(urls, ",")
}

// NodeURL is one node's own address.
func (c *Nodes) NodeURL(i int) string {
	return "nats://" + net.JoinHostPort(c.opts[i].Host, strconv.Itoa(c.opts[i].Port))
}

// Options are empty: the cluster asks for no credentials.
func (c *Nodes) Options() []nats.Option { return nil }

// StreamLeader is the node that leads the stream, or -1 while there is none.
func (c *Nodes) StreamLeader(stream string) int {
	for i, srv := range c.srvs {
		if srv != nil && srv.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
			return i
		}
	}
	return -1
}

// Stop shuts one node down, which hands over what it leads, and waits until it
// is down; harmless if it is stopped.
func (c *Nodes) Stop(i int) {
	if srv := c.srvs[i]; srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		c.srvs[i] = nil
	}
}

// Start runs a stopped node again, and returns when it has caught up with the
// cluster's own state (not with that of every stream). The others must be
// enough for a majority.
func (c *Nodes) Start(i int) {
	c.t.Helper()
	if c.srvs[i] != nil {
		return
	}
	if err := c.launch(i); err != nil {
		c.t.Fatalf("queuetest: %v", err)
	}
	c.waitReady()
}

func (c *Nodes) stopAll() {
	for i := range c.srvs {
		c.Stop(i)
	}
}
