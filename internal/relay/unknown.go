package relay

import (
	"slices"
	"strings"

	"github.com/rs/zerolog"
)

// WarnUnknown logs the name of each variable that begins as ours do and that no
// program of this project reads: what was meant by a misspelt one would not show in
// any other way. It is no fault, since several programs may share an environment,
// with those of other versions. environ is as of [os.Environ].
func WarnUnknown(log zerolog.Logger, environ []string) {
	for _, name := range unknownVariables(environ) {
		log.Warn().Str("variable", name).Msg("variable is not known: is it misspelt? --help lists them all")
	}
}

func unknownVariables(environ []string) (unknown []string) {
	known := map[string]bool{"WAZZUP_RELAY_VERSION": true} // docker-compose.yml
	for _, settings := range []Settings{NewWorkerSettings(), NewIngestSettings()} {
		for _, row := range settings.Table().Settings() {
			known[row.Name] = true
			known[row.Name+"_FILE"] = row.Secret
		}
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if value != "" && ours(name) && !known[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// ours reports whether a variable begins as those of this project do. What
// Kubernetes sets for each service, and Docker's links, may begin so too.
func ours(name string) bool {
	if strings.Contains(name, "_SERVICE_") || strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_") {
		return false
	}
	return slices.ContainsFunc([]string{"WAZZUP_", "WEBHOOK_", "EMBEDDED_"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}
