package config

import (
	"errors"
	"fmt"
	"strings"
)

// Error is everything that is wrong with a program's configuration. No text of
// it holds the value of a secret.
type Error struct {
	Program string // "" where no program is known, as for a file of accounts
	Faults  []Fault
}

// Fault is one thing that is wrong.
type Fault struct {
	Where string // variable and flag, or file:line:column and field; "" = the command line
	Text  string
}

// Error lists the faults, one a line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Program != "" {
		b.WriteString(e.Program + ": ")
	}
	if len(e.Faults) == 1 {
		b.WriteString("1 fault in the configuration:")
	} else {
		fmt.Fprintf(&b, "%d faults in the configuration:", len(e.Faults))
	}
	for i := range e.Faults {
		b.WriteString("\n  " + e.Faults[i].Error())
	}
	return b.String()
}

// Error says where and what.
func (f *Fault) Error() string {
	if f.Where == "" {
		return f.Text
	}
	return f.Where + ": " + f.Text
}

// faultsOf takes an error of a check apart.
func faultsOf(err error) []Fault {
	if all, ok := errors.AsType[*Error](err); ok {
		return all.Faults
	}
	if one, ok := errors.AsType[*Fault](err); ok {
		return []Fault{*one}
	}
	return []Fault{{Text: err.Error()}}
}
