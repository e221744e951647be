package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
	"github.com/wazzup-relay/wazzup-relay/internal/relay"
)

//go:generate env UPDATE_GOLDEN=1 go test -count=1 -run ^TestEnvExample$ .

const root = ".."

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every JSON and YAML file of the project can be read, whatever it is for. Files
// under testdata may be wrong on purpose.
func TestJSONAndYAML(t *testing.T) {
	t.Parallel()
	read := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", "bin", "data", "node_modules", "secrets", "testdata"}, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		parse := parserOf(path)
		if parse == nil {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		read++
		if err := parse(data); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 2 {
		t.Errorf("found %d files, want docker-compose.yml and .golangci.yml at least", read)
	}
}

func parserOf(path string) func(data []byte) error {
	switch filepath.Ext(path) {
	case ".json":
		return func(data []byte) error { return json.Unmarshal(data, new(any)) }
	case ".yaml", ".yml":
		return func(data []byte) error {
			_, err := parser.ParseBytes(data, 0)
			return err
		}
	default:
		return nil
	}
}

// service is what the rules below look at; composeconfig, which `make check`
// runs, holds the file against Compose's own rules.
type service struct {
	Image       string            `yaml:"image"`
	Command     []string          `yaml:"command"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	SecurityOpt []string          `yaml:"security_opt"`
	Grace       string            `yaml:"stop_grace_period"`
	Ports       []string          `yaml:"ports"`
	Environment map[string]string `yaml:"environment"`
	Secrets     []string          `yaml:"secrets"`
	Profiles    []string          `yaml:"profiles"`
}

func compose(t *testing.T) map[string]service {
	t.Helper()
	var file struct {
		Services map[string]service `yaml:"services"`
	}
	if err := yaml.Unmarshal(read(t, "docker-compose.yml"), &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

func TestComposeServices(t *testing.T) {
	t.Parallel()
	services := compose(t)
	got := slices.Sorted(maps.Keys(services))
	if want := []string{"ingest", "nats", "simulator", "worker"}; !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	for name, s := range services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
				t.Error("is not confined: read_only, cap_drop and no-new-privileges")
			}
			if grace, err := time.ParseDuration(s.Grace); err != nil || grace <= 20*time.Second {
				t.Errorf("stop_grace_period %q, want more than WAZZUP_TIMEOUT's default", s.Grace)
			}
			for _, port := range s.Ports {
				if !strings.HasPrefix(port, "127.0.0.1:") {
					t.Errorf("port %s is published beyond this machine", port)
				}
			}
			if _, tag, _ := strings.Cut(s.Image, ":"); tag == "" || tag == "latest" {
				t.Errorf("image %s is not pinned", s.Image)
			}
			if optional := len(s.Profiles) > 0; optional != (name == "simulator") {
				t.Errorf("profiles %v", s.Profiles)
			}
		})
	}
}

// The container's settings are taken by the programs, with the secrets' files in
// place of the mounted ones.
func TestComposeSettings(t *testing.T) {
	t.Parallel()
	services := compose(t)
	for name, settings := range map[string]relay.Settings{
		"worker": relay.NewWorkerSettings(),
		"ingest": relay.NewIngestSettings(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			known := map[string]bool{}
			for _, row := range settings.Table().Settings() {
				known[row.Name] = true
				if row.Secret {
					known[row.Name+"_FILE"] = true
				}
			}
			env := maps.Clone(services[name].Environment)
			for variable, value := range env {
				if !known[variable] {
					t.Errorf("%s is no setting of %s", variable, name)
				}
				file, isSecret := strings.CutPrefix(value, "/run/secrets/")
				if !isSecret {
					continue
				}
				if !slices.Contains(services[name].Secrets, file) {
					t.Errorf("%s names the secret %s, which the service does not have", variable, file)
				}
				env[variable] = filepath.Join(folder, file)
				if err := os.WriteFile(env[variable], []byte("0123456789abcdef\n"), 0o400); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			if err := relay.Parse(settings, services[name].Command[1:], func(n string) string { return env[n] }, &out); err != nil {
				t.Error(err)
			}
		})
	}
}

// The configuration of the nats container, read as the server itself reads it,
// with the passwords that the container's own command makes of the secret files.
func TestNATSConfiguration(t *testing.T) {
	secrets, nats := t.TempDir(), compose(t)["nats"]
	t.Setenv("CONFIG", nats.Environment["CONFIG"])
	var users []string
	for _, secret := range nats.Secrets {
		user, ok := strings.CutSuffix(strings.TrimPrefix(secret, "nats_"), "_password")
		if !ok {
			continue
		}
		users = append(users, strings.ReplaceAll(user, "_", "-"))
		// One of them is a number, and must stay a text.
		if err := os.WriteFile(filepath.Join(secrets, secret), fmt.Appendf(nil, "%de5\n", len(users)), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	command := strings.NewReplacer("$$", "$", "/run/secrets", secrets).Replace(nats.Command[0])
	export, program, found := strings.Cut(command, "&& exec ")
	if !found || program != `nats-server --config "/etc/nats/$CONFIG"` {
		t.Fatalf("the command is %s", command)
	}
	env, err := exec.CommandContext(t.Context(), "sh", "-c", export+" && env").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range regexp.MustCompile(`(?m)^(NATS_\w+)=(.*)$`).FindAllStringSubmatch(string(env), -1) {
		t.Setenv(variable[1], variable[2])
	}
	options, err := server.ProcessConfigFile(filepath.Join(root, "deploy", "nats", nats.Environment["CONFIG"]))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case !options.JetStream, options.StoreDir != "/data":
		t.Error("no JetStream on /data")
	case options.JetStreamMaxStore != 10<<30, options.SyncInterval != time.Second:
		t.Errorf("store %d bytes, sync interval %s", options.JetStreamMaxStore, options.SyncInterval)
	case options.Port != 4222, options.HTTPPort != 8222, options.HTTPHost != "127.0.0.1":
		t.Errorf("ports %d and %s", options.Port, net.JoinHostPort(options.HTTPHost, strconv.Itoa(options.HTTPPort)))
	}
	if len(options.Users) != len(users) {
		t.Errorf("%d users, and passwords of %q", len(options.Users), users)
	}
	for _, user := range options.Users {
		if want := fmt.Sprintf("%de5", slices.Index(users, user.Username)+1); user.Password != want {
			t.Errorf("%s has the password %q, want %q", user.Username, user.Password, want)
		}
	}
	// Worker and ingest log in as users that there are, and use their inboxes.
	for name, program := range map[string]service{"worker": compose(t)["worker"], "ingest": compose(t)["ingest"]} {
		if user := program.Environment["NATS_USER"]; user != name || program.Environment["NATS_INBOX_PREFIX"] != "_INBOX."+user ||
			program.Environment["NATS_PASSWORD_FILE"] != "/run/secrets/nats_"+user+"_password" {
			t.Errorf("%s logs in with %v", name, program.Environment)
		}
	}
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	text := string(read(t, "Dockerfile"))
	for _, from := range regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?(\S+)`).FindAllStringSubmatch(text, -1) {
		if image := from[1]; image != "scratch" && !regexp.MustCompile(`:\d+\.\d+\.\d+`).MatchString(image) {
			t.Errorf("base image %s is not pinned to a release", image)
		}
	}
	for _, want := range []string{"CGO_ENABLED=0", "USER 65532:65532", "./cmd/worker ./cmd/ingest ./cmd/wazzupctl", "ca-certificates.crt"} {
		if !strings.Contains(text, want) {
			t.Errorf("has no %s", want)
		}
	}
	// The toolchain of the image must be able to build what go.mod asks for.
	mod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(read(t, "go.mod"))
	if !strings.Contains(text, "golang:"+string(mod[1])+".") {
		t.Errorf("go.mod asks for Go %s, and the image has another", mod[1])
	}
}

// The server of the compose file is the one that is built in and tested with.
func TestNATSVersions(t *testing.T) {
	t.Parallel()
	if got, want := compose(t)["nats"].Image, "nats:"+server.VERSION+"-alpine"; got != want {
		t.Errorf("the image is %s, the tests run %s", got, want)
	}
}

// TestEnvExample compares .env.example with the programs' tables of settings;
// with UPDATE_GOLDEN=1 it writes the file.
func TestEnvExample(t *testing.T) {
	t.Parallel()
	want := envExample()
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile(filepath.Join(root, ".env.example"), []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(read(t, ".env.example")); got != want {
		line, gotLine, wantLine := firstDifference(got, want)
		t.Errorf(".env.example is not what the tables say: run `make generate`\nline %d: got  %q\nline %d: want %q", line, gotLine, line, wantLine)
	}
}

// firstDifference returns the number of the first line that differs, from 1, and
// its two forms.
func firstDifference(a, b string) (line int, inA, inB string) {
	linesA, linesB := strings.Split(a, "\n"), strings.Split(b, "\n")
	for line < min(len(linesA), len(linesB))-1 && linesA[line] == linesB[line] {
		line++
	}
	return line + 1, linesA[line], linesB[line]
}

func envExample() string {
	var b strings.Builder
	b.WriteString(`# Settings of wazzup-relay, each with its default. Copy this file to .env, where
# docker-compose.yml reads it; any other way to set environment variables does as
# well. An empty variable counts as unset. Every setting is a flag too: NATS_URL
# is --nats-url. Secrets can be given as NAME_FILE, the name of a file that holds
# the secret; docker-compose.yml does so, and sets NATS_*, INGEST_ADDR and
# ADMIN_ADDR itself.
#
# Written by ` + "`make generate`" + ` from the programs' own tables. OpenTelemetry's
# variables (OTEL_EXPORTER_OTLP_ENDPOINT, …) are read besides.

## docker-compose.yml only

# The image's tag.
#WAZZUP_RELAY_VERSION=local
# Ports on this machine.
#NATS_PORT=4222
#INGEST_PORT=8080
#WORKER_ADMIN_PORT=8081
#INGEST_ADMIN_PORT=8082
#SIMULATOR_PORT=8090
`)
	tables := []struct {
		program string
		rows    []config.Setting
	}{
		{"worker", relay.NewWorkerSettings().Table().Settings()},
		{"ingest", relay.NewIngestSettings().Table().Settings()},
	}
	// A variable whose default differs between the programs is listed for each.
	key := func(row config.Setting) string { return row.Name + "=" + row.Default }
	readers := map[string][]string{}
	for _, table := range tables {
		for _, row := range table.rows {
			readers[key(row)] = append(readers[key(row)], table.program)
		}
	}
	group := ""
	for _, table := range tables {
		for _, row := range table.rows {
			if readers[key(row)][0] != table.program {
				continue
			}
			if row.Group != group {
				group = row.Group
				b.WriteString("\n## " + group + "\n")
			}
			b.WriteString("\n")
			comment(&b, row.Usage+" ("+strings.Join(readers[key(row)], ", ")+")")
			b.WriteString("#" + key(row) + "\n")
			if row.Secret {
				b.WriteString("#" + row.Name + "_FILE=\n")
			}
		}
	}
	return b.String()
}

// comment writes a text as lines of at most 80 columns.
func comment(b *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
