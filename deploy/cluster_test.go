//go:build system

package deploy_test

import (
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/relay/relaytest"
	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

// TestRolesInACluster does what TestRolesCanDoTheirJobs does on three nodes, with
// three copies of each stream.
func TestRolesInACluster(t *testing.T) {
	t.Parallel()
	i := &install{guarded: guard(t, 3), sim: relaytest.Vendor(t, simulator.Config{}), replicas: 3, log: relaytest.NewOutput()}
	i.jobs()
}
