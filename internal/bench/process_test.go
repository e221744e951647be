package bench_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

// The environment of a process that plays a role instead of running benchmarks.
const (
	roleEnv = "BENCH_ROLE"
	specEnv = "BENCH_SPEC"
)

// spec is what a role is told when it starts.
type spec struct {
	Dir      string // the NATS server's folder
	NATS     string // URL
	Vendor   string // URL
	Accounts int
	Channels int // of each account
	Messages int // of each account, at most: streams are sized by it

	// What the worker may do.
	Rate rate.Rate // of all requests of an account; zero: as many as it can

	// What the vendor does.
	Listed  int           // channels that its list names
	Blocked int           // of them, the last ones: their state is "blocked", and it refuses their messages
	Delay   time.Duration // before it answers a message
	Stamped bool          // messages carry the time at which they were published

	Profile string // where to put profiles, without the ending; "" = none
}

// role is one process of a scene.
type role interface {
	// told is what the others need to know of it, once it works.
	told() any
	// answer replies to its own questions.
	answer(question string) any
	stop() error
}

func newRole(name string, s spec) (role, error) {
	switch name {
	case "server":
		return newServer(s)
	case "vendor":
		return newVendor(s)
	case "loop":
		return newLoop(s)
	case "watermill":
		return newWatermill(s)
	case "worker":
		return newWorker(s)
	case "bare":
		return newBare(s)
	case "ingest":
		return newIngest(s)
	}
	return nil, errors.New("no such role")
}

// play is the life of such a process: one line of JSON when it works, and one
// for each line that it is asked, until there are no more.
func play(name string) error {
	var s spec
	if err := json.Unmarshal([]byte(os.Getenv(specEnv)), &s); err != nil {
		return err
	}
	finish, err := profile(s.Profile)
	if err != nil {
		return err
	}
	r, err := newRole(name, s)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(r.told()); err != nil {
		return err
	}
	questions := bufio.NewScanner(os.Stdin)
	for questions.Scan() {
		var a any
		switch q := questions.Text(); q {
		case "usage":
			a, err = usageNow()
			if err != nil {
				return err
			}
		default:
			a = r.answer(q)
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return errors.Join(questions.Err(), r.stop(), finish())
}

// profile writes a CPU profile of the process, and at its end what it allocated.
func profile(path string) (finish func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	cpu, err := os.Create(path + ".cpu.pprof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		allocs, err := os.Create(path + ".allocs.pprof")
		if err != nil {
			return err
		}
		return errors.Join(cpu.Close(), pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
	}, nil
}

// usage is what a process has cost so far.
type usage struct {
	CPU    time.Duration // user and system
	RSS    int64         // resident bytes now; 0 where the system does not tell
	MaxRSS int64         // the most so far, bytes
}

func usageNow() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	u := usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()), MaxRSS: r.Maxrss << 10}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident int64
		if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
			return usage{}, err
		}
		u.RSS = resident * int64(os.Getpagesize())
	}
	return u, nil
}

// process is a role that was started.
type process struct {
	b    *testing.B
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
}

// start runs a role until stop, or the end of the benchmark; told gets what it
// tells of itself.
func start(b *testing.B, name string, s spec, told any) *process {
	b.Helper()
	if dir := os.Getenv("BENCH_PROFILE"); dir != "" {
		s.Profile = filepath.Join(dir, strings.ReplaceAll(b.Name(), "/", "_")+"."+name)
	}
	text, err := json.Marshal(s)
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	// Not bound to the benchmark's context, which ends before the cleanups: they
	// end the process, and so does the end of its input if we are killed.
	p := &process{b: b, name: name, cmd: exec.Command(self)} //nolint:noctx // see above
	p.cmd.Env = append(os.Environ(), roleEnv+"="+name, specEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	p.out = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.stop)
	if err := p.out.Decode(told); err != nil {
		b.Fatalf("%s did not start: %v", name, err)
	}
	return p
}

// ask puts a question and waits for its answer.
func (p *process) ask(question string, answer any) {
	p.b.Helper()
	if _, err := fmt.Fprintln(p.in, question); err != nil {
		p.b.Fatalf("ask %s: %v", p.name, err)
	}
	if err := p.out.Decode(answer); err != nil {
		p.b.Fatalf("%s did not answer %q: %v", p.name, question, err)
	}
}

func (p *process) tell(what string) {
	p.b.Helper()
	var nothing any
	p.ask(what, &nothing)
}

func (p *process) usage() usage {
	p.b.Helper()
	var u usage
	p.ask("usage", &u)
	return u
}

// stop has the process end in order and waits for it; harmless when repeated.
func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.in.Close() // its end of the pipe may be gone
	if err := p.cmd.Wait(); err != nil {
		p.b.Errorf("%s ended with: %v", p.name, err)
	}
	p.cmd = nil
}
