package sender_test

import (
	"slices"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/sender"
)

// Which attempts the echoes of one content prove.
func TestMatch(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	doubted := func(command string, claim uint64, seconds int) sender.Attempt {
		return sender.Attempt{Command: command, Doubted: true, Claim: claim, At: at(seconds)}
	}
	given := func(claim uint64, seconds int) sender.Attempt {
		return sender.Attempt{Given: true, Claim: claim, At: at(seconds)}
	}
	ownGiven := func(command string, claim uint64, seconds int) sender.Attempt {
		return sender.Attempt{Command: command, Doubted: true, Given: true, Claim: claim, At: at(seconds)}
	}
	echo := func(sequence uint64, seconds int) sender.Echo {
		return sender.Echo{Sequence: sequence, At: at(seconds)}
	}
	tests := []struct {
		name     string
		attempts []sender.Attempt
		echoes   []sender.Echo
		want     []int
	}{
		{"no echo", []sender.Attempt{doubted("a", 10, 0)}, nil, nil},
		{"one and one", []sender.Attempt{doubted("a", 10, 0)}, []sender.Echo{echo(11, 1)}, []int{0}},
		{"stored before the claim", []sender.Attempt{doubted("a", 10, 0)}, []sender.Echo{echo(9, 1)}, nil},
		{"the vendor's clock is 30 s behind", []sender.Attempt{doubted("a", 10, 0)}, []sender.Echo{echo(11, -30)}, []int{0}},
		{"an old message that comes late", []sender.Attempt{doubted("a", 10, 0)}, []sender.Echo{echo(11, -31)}, nil},
		{
			"dated after one claim, long before the other",
			[]sender.Attempt{doubted("late", 20, 100), doubted("early", 10, 0)},
			[]sender.Echo{echo(21, 5)},
			[]int{1},
		},
		{
			"only the earlier of two may own either echo",
			[]sender.Attempt{doubted("a", 10, 0), doubted("b", 20, 100)},
			[]sender.Echo{echo(11, 1), echo(12, 1)},
			nil,
		},
		{
			"a stranger's echo among them",
			[]sender.Attempt{doubted("a", 10, 0)},
			[]sender.Echo{echo(11, 1), echo(12, 2)},
			nil,
		},
		{
			"an echo that is too old is nobody's, and harms nothing",
			[]sender.Attempt{doubted("a", 10, 0)},
			[]sender.Echo{echo(11, -60), echo(12, 2)},
			[]int{-1, 0},
		},
		{
			"two and one: the earlier claim's",
			[]sender.Attempt{doubted("b", 20, 1), doubted("a", 10, 0)},
			[]sender.Echo{echo(21, 1)},
			[]int{1},
		},
		{
			"two and two",
			[]sender.Attempt{doubted("a", 10, 0), doubted("b", 20, 1)},
			[]sender.Echo{echo(21, 1), echo(22, 2)},
			[]int{0, 1},
		},
		{
			"an echo moves over for one that has no other place",
			[]sender.Attempt{doubted("a", 10, 0), doubted("b", 20, 100)},
			[]sender.Echo{echo(21, 100), echo(22, 1)},
			[]int{1, 0},
		},
		{
			"one given up, one in doubt, one echo",
			[]sender.Attempt{given(10, 0), doubted("a", 20, 1)},
			[]sender.Echo{echo(21, 1)},
			nil,
		},
		{
			"one given up, one in doubt, two echoes",
			[]sender.Attempt{given(10, 0), doubted("a", 20, 1)},
			[]sender.Echo{echo(21, 1), echo(22, 1)},
			[]int{1, 0},
		},
		{
			"one given up, one in doubt, and an echo that came between",
			[]sender.Attempt{given(10, 0), doubted("a", 20, 1)},
			[]sender.Echo{echo(11, 0)},
			[]int{0},
		},
		{
			"two given up and one echo",
			[]sender.Attempt{given(10, 0), given(20, 1)},
			[]sender.Echo{echo(21, 1)},
			nil,
		},
		{
			"two given up and two echoes",
			[]sender.Attempt{given(10, 0), given(20, 1)},
			[]sender.Echo{echo(21, 1), echo(22, 1)},
			[]int{0, 1},
		},
		{
			"what the same command gave up stands not against it",
			[]sender.Attempt{ownGiven("a", 10, 0), doubted("a", 20, 1)},
			[]sender.Echo{echo(21, 1)},
			[]int{1},
		},
		{
			"only what the same command gave up may own it",
			[]sender.Attempt{ownGiven("a", 10, 0), doubted("a", 20, 100)},
			[]sender.Echo{echo(21, 1)},
			[]int{0},
		},
		{
			"three echoes for two attempts of one command",
			[]sender.Attempt{ownGiven("a", 10, 0), doubted("a", 20, 1)},
			[]sender.Echo{echo(21, 1), echo(22, 1), echo(23, 1)},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := sender.Match(tt.attempts, tt.echoes); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
