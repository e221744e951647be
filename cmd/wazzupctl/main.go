// Command wazzupctl is the operator's and developer's tool.
//
//	wazzupctl dev --once     the whole system in one process, sample traffic through it, and out
//	wazzupctl dev            the same system, to try things against
//	wazzupctl send …         send one message
//	wazzupctl watch          follow the events
//	wazzupctl trace ID       one command's timeline
//	wazzupctl cancel ID      see to it that it is never sent
//	wazzupctl resolve ID …   decide about one whose fate is unknown
//	wazzupctl lanes          what is closed or paused, why, and what waits
//	wazzupctl dead list      what failed; dead redrive sends it after all
//	wazzupctl contacts …     list, get, upsert and delete; users and deals likewise
//	wazzupctl chat-window …  the address of a chat window
//	wazzupctl doctor         what is wrong, and how to mend it
//
// `wazzupctl --help` lists all commands, and `wazzupctl <command> --help` has an
// example of each. It reaches NATS and the account by the same variables and
// flags as the other programs (NATS_URL, WAZZUP_ACCOUNT, …). Exit code 0: good;
// 1: failed; 2: wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/alecthomas/kong"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
)

func main() { os.Exit(daemon.Main(run)) }

// grammar is the command line; each field is a command.
type grammar struct {
	Dev        devCmd        `cmd:"" help:"Run everything in one process: NATS, a simulated Wazzup, worker and ingest."`
	Simulate   simulateCmd   `cmd:"" help:"Run the simulated Wazzup alone."`
	Send       sendCmd       `cmd:"" help:"Send one message."`
	Watch      watchCmd      `cmd:"" help:"Follow the events of an account."`
	Trace      traceCmd      `cmd:"" help:"Show the timeline of one command."`
	Cancel     cancelCmd     `cmd:"" help:"See to it that a command is never sent."`
	Resolve    resolveCmd    `cmd:"" help:"Decide about a command whose fate is unknown."`
	Lanes      lanesCmd      `cmd:"" help:"List the lanes, pause and resume them."`
	Channels   channelsCmd   `cmd:"" help:"List the account's channels and their states."`
	Users      usersCmd      `cmd:"" help:"List, change and delete the users that Wazzup has."`
	Contacts   contactsCmd   `cmd:"" help:"List, change and delete the contacts that Wazzup has."`
	Deals      dealsCmd      `cmd:"" help:"List, change and delete the deals that Wazzup has."`
	ChatWindow chatWindowCmd `cmd:"" help:"Open a chat window: print its address."`
	Webhook    webhookCmd    `cmd:"" help:"Show or change the webhook address that Wazzup posts to."`
	Dead       deadCmd       `cmd:"" help:"List, redrive or drop the commands that ended dead."`
	Doctor     doctorCmd     `cmd:"" help:"Check NATS, streams, worker, key, channels and webhook."`
}

// env is what a command gets from its process.
type env struct {
	getenv func(string) string
	stdin  io.Reader
	stderr io.Writer
	*printer
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	return runWith(ctx, args, getenv, os.Stdin, stdout, stderr)
}

// command is what every command of the grammar can do.
type command interface {
	Run(ctx context.Context, e *env) error
}

func runWith(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	exited := false
	parser, err := kong.New(new(grammar),
		kong.Name("wazzupctl"),
		kong.Description("Operate and try out wazzup-relay. Every command that prints takes --json. Exit code 0: good, 1: failed, 2: wrong usage."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) {
			exited = true
			panic(errHelp) // kong goes on parsing otherwise, and finds arguments missing
		}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: helpWidth}),
		kong.ShortUsageOnError(),
	)
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	defer func() {
		if !exited {
			return
		}
		if value := recover(); value != nil && value != any(errHelp) {
			panic(value)
		}
		err = nil
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return &relay.UsageError{Err: fmt.Errorf("%w (%s --help tells more)", err, commandName(parser, err))}
	}
	chosen, ok := reflect.TypeAssert[command](parsed.Selected().Target.Addr())
	if !ok {
		return errors.New("command line: the command cannot be run")
	}
	return chosen.Run(ctx, &env{getenv: getenv, stdin: stdin, stderr: stderr, printer: newPrinter(stdout, stderr, getenv)})
}

const helpWidth = 100

// errHelp unwinds the parser when help has been printed.
var errHelp = errors.New("help was printed")

// commandName is as much of the command as was understood.
func commandName(parser *kong.Kong, err error) string {
	parse, ok := errors.AsType[*kong.ParseError](err)
	if !ok || parse.Context == nil || parse.Context.Selected() == nil {
		return parser.Model.Name
	}
	return parser.Model.Name + " " + parse.Context.Selected().Path()
}
