package daemon

import "errors"

// Exit codes of every program.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2 // wrong configuration or usage; nothing was started
)

// ConfigFault is a setting that cannot work. Its text names the variable and
// never a secret's value.
type ConfigFault struct {
	Variable string
	Err      error
}

// Error names the variable and what is wrong with it.
func (f *ConfigFault) Error() string { return f.Variable + ": " + f.Err.Error() }

// Unwrap returns what is wrong.
func (f *ConfigFault) Unwrap() error { return f.Err }

// ExitCode makes [Main] end with ExitUsage.
func (f *ConfigFault) ExitCode() int { return ExitUsage }

func fault(variable, text string) *ConfigFault {
	return &ConfigFault{Variable: variable, Err: errors.New(text)}
}
