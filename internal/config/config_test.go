package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

// canary is the value of every secret here, right or wrong: no message may hold it.
const canary = "CANARY-5f1d"

// values are the variables of a table with a setting of every kind.
type values struct {
	url         string
	users       []string
	format      string
	attempts    int
	insecure    bool
	timeout     time.Duration
	limit       int64
	rate        rate.Rate
	key         config.Secret
	checked     int
	checkFaults []error
}

func table(v *values) *config.Set {
	s := config.New("worker", "Sends what the queue holds.")
	s.Group("NATS")
	s.String(&v.url, "NATS_URL", "nats://127.0.0.1:4222", "Where NATS listens.")
	s.Group("Vendor")
	s.Strings(&v.users, "COUNTER_USERS", nil, "Users to follow.")
	s.Choice(&v.format, "LOG_FORMAT", "json", "Form of the log.", "json", "console")
	s.Int(&v.attempts, "WAZZUP_MAX_ATTEMPTS", 8, "Calls at most.")
	s.Bool(&v.insecure, "WAZZUP_API_INSECURE", false, "Allow http.")
	s.Duration(&v.timeout, "WAZZUP_TIMEOUT", 2*time.Minute, "Longest call.")
	s.Bytes(&v.limit, "BODY_LIMIT", 8<<20, "Largest body.")
	s.Text(&v.rate, "WAZZUP_BULK_RATE", "20/1m", "Pace of bulk.")
	s.Secret(&v.key, "WAZZUP_API_KEY", "The key.")
	s.Check(func() []error { v.checked++; return v.checkFaults })
	return s
}

func env(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// faults returns the faults of an error as lines, and fails where they show a secret.
func faults(t *testing.T, err error) []string {
	t.Helper()
	all, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("got %v (%T), want a *config.Error", err, err)
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("the error shows a secret: %v", err)
	}
	lines := make([]string, len(all.Faults))
	for i := range all.Faults {
		lines[i] = all.Faults[i].Error()
	}
	return lines
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	var v values
	if err := table(&v).Parse(nil, env(nil)); err != nil {
		t.Fatal(err)
	}
	switch {
	case v.url != "nats://127.0.0.1:4222", v.users != nil, v.format != "json", v.attempts != 8, v.insecure,
		v.timeout != 2*time.Minute, v.limit != 8<<20, v.rate != rate.Rate{N: 20, Per: time.Minute}, v.key != "":
		t.Errorf("got %+v", v)
	case v.checked != 1:
		t.Errorf("the check ran %d times, want once", v.checked)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want int
	}{
		{"default", nil, nil, 8},
		{"an empty variable is unset", nil, map[string]string{"WAZZUP_MAX_ATTEMPTS": ""}, 8},
		{"variable", nil, map[string]string{"WAZZUP_MAX_ATTEMPTS": "5"}, 5},
		{"flag", []string{"--wazzup-max-attempts", "3"}, nil, 3},
		{"flag before variable", []string{"--wazzup-max-attempts=3"}, map[string]string{"WAZZUP_MAX_ATTEMPTS": "5"}, 3},
		{"flag before a wrong variable", []string{"--wazzup-max-attempts=3"}, map[string]string{"WAZZUP_MAX_ATTEMPTS": "x"}, 3},
		{"the last of two flags", []string{"--wazzup-max-attempts=3", "--wazzup-max-attempts=4"}, nil, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var v values
			if err := table(&v).Parse(tt.args, env(tt.env)); err != nil {
				t.Fatal(err)
			}
			if v.attempts != tt.want {
				t.Errorf("got %d, want %d", v.attempts, tt.want)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		ok   func(v *values) bool
	}{
		{"text", []string{"--nats-url", "nats://h:1"}, func(v *values) bool { return v.url == "nats://h:1" }},
		{"text that holds =", []string{"--nats-url=a=b"}, func(v *values) bool { return v.url == "a=b" }},
		{"text set to nothing", []string{"--nats-url="}, func(v *values) bool { return v.url == "" }},
		{"list", []string{"--counter-users", " 17, ,a b,"}, func(v *values) bool { return slices.Equal(v.users, []string{"17", "a b"}) }},
		{"choice", []string{"--log-format", "console"}, func(v *values) bool { return v.format == "console" }},
		{"zero", []string{"--wazzup-max-attempts", "0"}, func(v *values) bool { return v.attempts == 0 }},
		{"switch", []string{"--wazzup-api-insecure"}, func(v *values) bool { return v.insecure }},
		{"switch before another flag", []string{"--wazzup-api-insecure", "--log-format=console"}, func(v *values) bool { return v.insecure && v.format == "console" }},
		{"switch with a value", []string{"--wazzup-api-insecure=false"}, func(v *values) bool { return !v.insecure }},
		{"duration", []string{"--wazzup-timeout", "1m30s"}, func(v *values) bool { return v.timeout == 90*time.Second }},
		{"size", []string{"--body-limit", "512KiB"}, func(v *values) bool { return v.limit == 512<<10 }},
		{"plain size", []string{"--body-limit", "1000"}, func(v *values) bool { return v.limit == 1000 }},
		{"largest size", []string{"--body-limit", "8388607TiB"}, func(v *values) bool { return v.limit == 8388607<<40 }},
		{"rate", []string{"--wazzup-bulk-rate", "0"}, func(v *values) bool { return v.rate.IsZero() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var v values
			if err := table(&v).Parse(tt.args, env(nil)); err != nil {
				t.Fatal(err)
			}
			if !tt.ok(&v) {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	var v values
	err := table(&v).Parse(
		[]string{"--wazzup-timeout", "soon", "stray", "--no-such", canary, "-v", "--log-format=xml", "--body-limit"},
		env(map[string]string{
			"WAZZUP_MAX_ATTEMPTS": "many", "WAZZUP_API_INSECURE": "perhaps", "WAZZUP_BULK_RATE": "20/m",
			"WAZZUP_API_KEY": canary, "WAZZUP_API_KEY_FILE": "/nowhere/" + canary,
		}))
	got := faults(t, err)
	want := []string{
		"a stray argument: there are only flags, each as --name value or --name=value",
		"--no-such: is no flag of worker: --help lists them all",
		"a stray argument: there are only flags, each as --name value or --name=value",
		"--body-limit: needs a value",
		`--log-format (LOG_FORMAT): "xml" is not one of json, console`,
		`WAZZUP_MAX_ATTEMPTS (--wazzup-max-attempts): "many" is no whole number of 0 or more`,
		`WAZZUP_API_INSECURE (--wazzup-api-insecure): "perhaps" is neither true nor false`,
		`--wazzup-timeout (WAZZUP_TIMEOUT): "soon" is no duration such as 500ms, 20s or 1h30m`,
		`WAZZUP_BULK_RATE (--wazzup-bulk-rate): "20/m" is no rate: "m" is no duration such as 5s or 1m`,
		"WAZZUP_API_KEY: is given twice: unset it or WAZZUP_API_KEY_FILE",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	if !strings.HasPrefix(err.Error(), "worker: 10 faults in the configuration:\n  a stray") {
		t.Errorf("the error begins otherwise: %v", err)
	}
	if v.checked != 0 {
		t.Error("the check ran on settings that could not be read")
	}
}

func TestRefusedValues(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, arg, says string }{
		{"negative number", "--wazzup-max-attempts=-1", "no whole number"},
		{"fraction", "--wazzup-max-attempts=1.5", "no whole number"},
		{"number beyond the machine's", "--wazzup-max-attempts=9223372036854775808", "no whole number"},
		{"number set to nothing", "--wazzup-max-attempts=", "no whole number"},
		{"negative duration", "--wazzup-timeout=-1s", "no duration"},
		{"duration without unit", "--wazzup-timeout=20", "no duration"},
		{"ambiguous unit", "--body-limit=8MB", "no size"},
		{"unit alone", "--body-limit=MiB", "no size"},
		{"negative size", "--body-limit=-1", "no size"},
		{"fraction of a size", "--body-limit=1.5GiB", "no size"},
		{"size beyond 63 bits", "--body-limit=8388608TiB", "too large"},
		{"flag next to a flag", "--nats-url", "needs a value"},
		{"secret's file without a name", "--wazzup-api-key-file=", "names no file"},
		{"two hyphens alone", "--", "stray"},
		{"one hyphen", "-nats-url=x", "stray"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var v values
			got := faults(t, table(&v).Parse([]string{tt.arg, "--log-format=json"}, env(nil)))
			if len(got) != 1 || !strings.Contains(got[0], tt.says) {
				t.Errorf("got %q, want one fault that says %q", got, tt.says)
			}
		})
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	file := write(t, canary+"\n")
	tests := []struct {
		name string
		args []string
		env  map[string]string
	}{
		{"variable", nil, map[string]string{"WAZZUP_API_KEY": canary}},
		{"file by variable", nil, map[string]string{"WAZZUP_API_KEY_FILE": file}},
		{"file by flag", []string{"--wazzup-api-key-file", file}, nil},
		{"flag before variable", []string{"--wazzup-api-key-file", file}, map[string]string{"WAZZUP_API_KEY": "old"}},
		{"flag before both variables", []string{"--wazzup-api-key-file", file}, map[string]string{"WAZZUP_API_KEY": "old", "WAZZUP_API_KEY_FILE": "/nowhere"}},
		{"file with CRLF", []string{"--wazzup-api-key-file", write(t, canary+"\r\n")}, nil},
		{"file without a line break", []string{"--wazzup-api-key-file", write(t, canary)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var v values
			if err := table(&v).Parse(tt.args, env(tt.env)); err != nil {
				t.Fatal(err)
			}
			if string(v.key) != canary {
				t.Errorf("got %q, want the file's text without its line break", string(v.key))
			}
		})
	}
}

func TestSecretRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want string
	}{
		{"the secret where its file's name belongs", nil, map[string]string{"WAZZUP_API_KEY_FILE": canary}, "WAZZUP_API_KEY_FILE: the file that it names cannot be read: no such file or directory"},
		{"as a flag", []string{"--wazzup-api-key", canary}, nil, "--wazzup-api-key: is no flag, since arguments show in the list of processes: use --wazzup-api-key-file, WAZZUP_API_KEY or WAZZUP_API_KEY_FILE"},
		{"as a flag with =", []string{"--wazzup-api-key=" + canary}, nil, "--wazzup-api-key: is no flag, since arguments show in the list of processes: use --wazzup-api-key-file, WAZZUP_API_KEY or WAZZUP_API_KEY_FILE"},
		{"as a stray argument", []string{canary}, nil, "a stray argument: there are only flags, each as --name value or --name=value"},
		{"as a stray argument with a hyphen", []string{"-" + canary}, nil, "a stray argument: there are only flags, each as --name value or --name=value"},
		{"an empty file", []string{"--wazzup-api-key-file", write(t, "\n")}, nil, "--wazzup-api-key-file: the file is empty"},
		{"two lines", []string{"--wazzup-api-key-file", write(t, canary+"\nmore\n")}, nil, "--wazzup-api-key-file: the secret holds a line break or another control character"},
		{"a line break in the variable", nil, map[string]string{"WAZZUP_API_KEY": canary + "\n"}, "WAZZUP_API_KEY: the secret holds a line break or another control character"},
		{"a folder", []string{"--wazzup-api-key-file", t.TempDir()}, nil, "--wazzup-api-key-file: the file that it names cannot be read: is a directory"},
		{"a file too large", []string{"--wazzup-api-key-file", write(t, strings.Repeat(canary, 6000))}, nil, "--wazzup-api-key-file: the file is larger than 64KiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var v values
			got := faults(t, table(&v).Parse(tt.args, env(tt.env)))
			if !slices.Equal(got, []string{tt.want}) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestChecks(t *testing.T) {
	t.Parallel()
	var v values
	s := table(&v)
	v.checkFaults = []error{
		s.Fault("WAZZUP_TIMEOUT", "must be shorter than the lease"),
		s.Fault("NO_SUCH", "is not declared"),
		&config.Error{Faults: []config.Fault{{Where: "f:1:2", Text: "one"}, {Where: "f:3:4", Text: "two"}}},
		errors.New("of no setting"),
	}
	got := faults(t, s.Parse(nil, env(nil)))
	want := []string{
		"WAZZUP_TIMEOUT (--wazzup-timeout): must be shorter than the lease",
		"NO_SUCH: is not declared", "f:1:2: one", "f:3:4: two", "of no setting",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestHelpIsAsked(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"--help", "-h"} {
		var v values
		err := table(&v).Parse([]string{"--no-such", arg}, env(map[string]string{"WAZZUP_MAX_ATTEMPTS": "x"}))
		if !errors.Is(err, config.ErrHelp) {
			t.Errorf("%s: got %v, want ErrHelp whatever else is wrong", arg, err)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var v values
	s := table(&v)
	if err := s.Parse([]string{"--nats-url=nats://user:pass@h"}, env(map[string]string{"WAZZUP_API_KEY": canary})); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	s.Help(&b)
	want := `Usage: worker [flags]

Sends what the queue holds.

Every setting is an environment variable and a flag; the flag goes first. A
secret is read from its variable, or from the file that NAME_FILE or the flag
names.

NATS:
  NATS_URL, --nats-url <text>
      Where NATS listens. (default nats://127.0.0.1:4222)

Vendor:
  COUNTER_USERS, --counter-users <list>
      Users to follow.
  LOG_FORMAT, --log-format <json|console>
      Form of the log. (default json)
  WAZZUP_MAX_ATTEMPTS, --wazzup-max-attempts <number>
      Calls at most. (default 8)
  WAZZUP_API_INSECURE, --wazzup-api-insecure <true|false>
      Allow http. (default false)
  WAZZUP_TIMEOUT, --wazzup-timeout <duration>
      Longest call. (default 2m)
  BODY_LIMIT, --body-limit <size>
      Largest body. (default 8MiB)
  WAZZUP_BULK_RATE, --wazzup-bulk-rate <rate>
      Pace of bulk. (default 20/1m)
  WAZZUP_API_KEY, --wazzup-api-key-file <file>
      The key. (secret)

  -h, --help
      Print this and exit.
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSettingsList(t *testing.T) {
	t.Parallel()
	var v values
	rows := table(&v).Settings()
	if len(rows) != 9 {
		t.Fatalf("got %d rows, want 9", len(rows))
	}
	if got, want := rows[6], (config.Setting{Group: "Vendor", Name: "BODY_LIMIT", Flag: "--body-limit", Kind: "size", Default: "8MiB", Usage: "Largest body."}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := rows[8], (config.Setting{Group: "Vendor", Name: "WAZZUP_API_KEY", Flag: "--wazzup-api-key-file", Kind: "file", Usage: "The key.", Secret: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMistakesOfTheProgramPanic(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		declare func(s *config.Set)
	}{
		{"declared twice", func(s *config.Set) {
			var a, b string
			s.String(&a, "NAME", "", "")
			s.String(&b, "NAME", "", "")
		}},
		{"a default that its type refuses", func(s *config.Set) {
			s.Text(new(rate.Rate), "RATE", "20/m", "")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tt.declare(config.New("p", ""))
		})
	}
}

func TestBytesText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		n    int64
		want string
	}{
		{0, "0"},
		{1, "1"},
		{1000, "1000"},
		{1024, "1KiB"},
		{1536, "1536"},
		{8 << 20, "8MiB"},
		{1 << 30, "1GiB"},
		{3 << 40, "3TiB"},
		{1<<20 + 1024, "1025KiB"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			got := config.FormatBytes(tt.n)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if back, err := config.ParseBytes(got); err != nil || back != tt.n {
				t.Errorf("ParseBytes(%q) = %d, %v, want %d", got, back, err, tt.n)
			}
		})
	}
}

// FuzzArguments: whatever the command line, it is taken or there is a fault, and
// none shows the secret of the environment.
func FuzzArguments(f *testing.F) {
	f.Add("--nats-url", "x", "--help")
	f.Add("--nats-url=", "--", "-h")
	f.Add("--wazzup-api-key", "x", "--wazzup-api-insecure")
	f.Add("=", "--=", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var v values
		err := table(&v).Parse([]string{a, b, c}, env(map[string]string{"WAZZUP_API_KEY": canary}))
		if err == nil || errors.Is(err, config.ErrHelp) {
			return
		}
		if len(faults(t, err)) == 0 {
			t.Errorf("an error without a fault: %v", err)
		}
	})
}

func FuzzBytes(f *testing.F) {
	for _, seed := range []string{"0", "8MiB", "1GiB", "8388608TiB", "-1", "1.5KiB", "KiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := config.ParseBytes(text)
		if err != nil {
			return
		}
		if back, err := config.ParseBytes(config.FormatBytes(n)); n < 0 || err != nil || back != n {
			t.Errorf("ParseBytes(%q) = %d, which reads back as %d, %v", text, n, back, err)
		}
	})
}
