package bench_test

import (
	"context"
	"errors"
	"os"

	"github.com/rs/zerolog"
	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
	"github.com/wazzup-relay/wazzup-relay/internal/telemetry"
)

// observed is what a program measures and logs with, as it is set by default:
// metrics are counted, log lines written, though to nowhere.
type observed struct {
	*telemetry.Telemetry
	log  zerolog.Logger
	null *os.File
}

func observe() (*observed, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	log, err := daemon.NewLogger("info", daemon.FormatJSON, null)
	if err != nil {
		return nil, err
	}
	tel, err := telemetry.Setup(context.Background(), telemetry.Config{Service: "bench", Log: log})
	return &observed{tel, log, null}, err
}

func (o *observed) close() error {
	return errors.Join(o.Shutdown(context.Background()), o.null.Close())
}
