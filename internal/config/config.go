// Package config is the settings of a program as one table: each is an
// environment variable and a flag, is listed by --help, and can be documented
// from [Set.Settings]. Everything that is wrong is reported at once.
//
// Read in this order: config.go (the table and reading it), kinds.go (what a
// value may look like), secret.go (values that never show), help.go, and
// accounts.go (the file of many accounts) over yaml.go.
package config

import (
	"errors"
	"slices"
	"strings"
)

// ErrHelp is what [Set.Parse] returns for --help and -h.
var ErrHelp = errors.New("help was asked for")

// Set is the table of a program's settings. It is declared, parsed once, and
// not for use by several goroutines.
type Set struct {
	program  string
	synopsis string
	group    string
	settings []*setting
	checks   []func() []error
}

// Setting is one row of the table, for documentation and help.
type Setting struct {
	Group   string
	Name    string // environment variable: NATS_URL
	Flag    string // with its hyphens: --nats-url; of a secret --…-file
	Kind    string // what a value looks like: text, number, duration, …
	Default string // as it would be written; "" = none
	Usage   string
	Secret  bool // Name+"_FILE" is read too, and no flag takes the value itself
}

// setting is a row and where its value goes.
type setting struct {
	Setting
	set      func(text string) error // of a plain setting
	switchOn bool                    // the flag alone means true
	secret   *Secret                 // of a secret
}

// New starts the table of a program: its name, and what it does in a paragraph.
func New(program, synopsis string) *Set {
	return &Set{program: program, synopsis: synopsis}
}

// Group names the heading under which --help lists the settings that follow.
func (s *Set) Group(title string) { s.group = title }

// Check adds a rule that spans settings. It runs once all of them are read
// without fault. An [*Error] among what it returns is taken apart into its
// faults; for the others [Set.Fault] names variable and flag.
func (s *Set) Check(rule func() []error) { s.checks = append(s.checks, rule) }

// Fault makes a [Fault] of a setting, by the name of its variable.
func (s *Set) Fault(name, text string) error {
	where := name
	if row := s.byName(name); row != nil {
		where = row.where()
	}
	return &Fault{Where: where, Text: text}
}

// Settings lists the table in the order of declaration.
func (s *Set) Settings() []Setting {
	rows := make([]Setting, len(s.settings))
	for i, row := range s.settings {
		rows[i] = row.Setting
	}
	return rows
}

// Parse reads every setting: a flag goes before an environment variable, that
// before the default. An empty variable counts as unset. args are those after
// the program's name; getenv is [os.Getenv]. The error is [ErrHelp], or an
// [*Error] with every fault; the variables are then not to be used.
func (s *Set) Parse(args []string, getenv func(string) string) error {
	flags, faults, help := s.readFlags(args)
	if help {
		return ErrHelp
	}
	for _, row := range s.settings {
		text, given := flags[row.Flag]
		switch {
		case row.secret != nil:
			faults = append(faults, row.readSecret(text, given, getenv)...)
		case given:
			faults = append(faults, row.read(row.Flag, text)...)
		default:
			if text = getenv(row.Name); text != "" {
				faults = append(faults, row.read(row.Name, text)...)
			}
		}
	}
	if len(faults) == 0 {
		faults = s.runChecks()
	}
	if len(faults) > 0 {
		return &Error{Program: s.program, Faults: faults}
	}
	return nil
}

func (s *Set) runChecks() (faults []Fault) {
	for _, rule := range s.checks {
		for _, err := range rule() {
			faults = append(faults, faultsOf(err)...)
		}
	}
	return faults
}

// readFlags takes the command line apart. No text that might be a value goes
// into a fault: a mistyped flag's value may be a secret.
func (s *Set) readFlags(args []string) (flags map[string]string, faults []Fault, help bool) {
	flags = make(map[string]string)
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--help" || arg == "-h" {
			return nil, nil, true
		}
		name, value, inline := strings.Cut(arg, "=")
		row := s.byFlag(name)
		switch {
		case !strings.HasPrefix(arg, "--") || len(arg) == len("--"):
			faults = append(faults, Fault{Text: "a stray argument: there are only flags, each as --name value or --name=value"})
		case row == nil:
			faults = append(faults, s.unknownFlag(name))
			if !inline {
				args = skipValue(args)
			}
		case inline:
			flags[name] = value
		case row.switchOn:
			flags[name] = "true"
		case len(args) == 0 || strings.HasPrefix(args[0], "--"):
			faults = append(faults, Fault{Where: name, Text: "needs a value"})
		default:
			flags[name] = args[0]
			args = args[1:]
		}
	}
	return flags, faults, false
}

// skipValue drops what is most likely the value of an unknown flag, so that it
// is not reported a second time.
func skipValue(args []string) []string {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return args[1:]
	}
	return args
}

func (s *Set) unknownFlag(name string) Fault {
	if row := s.byFlag(name + "-file"); row != nil && row.secret != nil {
		return Fault{Where: name, Text: "is no flag, since arguments show in the list of processes: use " +
			row.Flag + ", " + row.Name + " or " + row.Name + fileSuffix}
	}
	return Fault{Where: name, Text: "is no flag of " + s.program + ": --help lists them all"}
}

func (s *Set) byFlag(flag string) *setting {
	i := slices.IndexFunc(s.settings, func(row *setting) bool { return row.Flag == flag })
	if i < 0 {
		return nil
	}
	return s.settings[i]
}

func (s *Set) byName(name string) *setting {
	i := slices.IndexFunc(s.settings, func(row *setting) bool { return row.Name == name })
	if i < 0 {
		return nil
	}
	return s.settings[i]
}

// add appends a row; two of one name are a mistake of the program's own.
func (s *Set) add(row *setting) {
	if s.byName(row.Name) != nil {
		panic("config: " + row.Name + " is declared twice")
	}
	row.Group = s.group
	s.settings = append(s.settings, row)
}

func flagOf(name string) string {
	return "--" + strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// where names a setting in full, for faults that no single source is to blame for.
func (r *setting) where() string { return r.Name + " (" + r.Flag + ")" }

// read sets the value from its text. Source is the variable or the flag.
func (r *setting) read(source, text string) []Fault {
	if err := r.set(text); err != nil {
		where := r.where()
		if source == r.Flag {
			where = r.Flag + " (" + r.Name + ")"
		}
		return []Fault{{Where: where, Text: err.Error()}}
	}
	return nil
}
