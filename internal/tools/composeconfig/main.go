// Command composeconfig reads a compose file as `docker compose config` does,
// with every profile on, and prints the services that it found. It needs no
// Docker: the file is checked on machines that have none.
//
//	go run ./composeconfig docker-compose.yml
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "composeconfig:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, files []string, stdout io.Writer) error {
	if len(files) == 0 {
		return errors.New("name the compose file")
	}
	options, err := cli.NewProjectOptions(files, cli.WithProfiles([]string{"*"}), cli.WithConsistency(true))
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(files, ", "), err)
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(files, ", "), err)
	}
	_, err = fmt.Fprintf(stdout, "%s: services %s\n", strings.Join(files, ", "), strings.Join(project.ServiceNames(), ", "))
	return err
}
