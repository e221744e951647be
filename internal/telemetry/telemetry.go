// Package telemetry sets up OpenTelemetry: metrics for /metrics, traces by
// OTLP over HTTP if asked for, and the trace context that travels in NATS
// headers.
//
// OpenTelemetry's own variables are read from the process's environment, most
// of them by its SDK (v1.47):
//
//   - Here: OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER (otlp or none), and whether
//     OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set.
//   - By the SDK: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
//     OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_BSP_*, OTEL_SPAN_*,
//     OTEL_ATTRIBUTE_*, OTEL_EXPORTER_OTLP_* (headers, certificates, timeout,
//     compression; as protocol http/protobuf and http/json),
//     OTEL_METRICS_EXEMPLAR_FILTER.
//   - Not at all: OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER (metrics are
//     always at /metrics, logs always on standard error), OTEL_PROPAGATORS
//     (W3C trace context only: baggage may carry anything, also to the vendor).
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/wazzup-relay/wazzup-relay/internal/daemon"
)

// scope names the instruments and spans of this project.
const scope = "github.com/wazzup-relay/wazzup-relay"

// failureEvery is how often a lasting failure to export is logged.
const failureEvery = 5 * time.Minute

// Config says who reports.
type Config struct {
	// Service is the service.name unless OTEL_SERVICE_NAME or
	// OTEL_RESOURCE_ATTRIBUTES says otherwise.
	Service string
	// Version is the service.version; "" = none.
	Version string
	// Log hears OpenTelemetry's own errors. The zero value is silent.
	Log zerolog.Logger
}

// Telemetry is what a program measures and traces with.
type Telemetry struct {
	// Meter makes instruments; see NewCounter for closed sets of labels.
	Meter metric.Meter
	// Tracer starts spans. Without an exporter its spans cost nothing, but
	// still carry a producer's trace context on.
	Tracer trace.Tracer
	// Propagator is W3C trace context, for a HeaderCarrier.
	Propagator propagation.TextMapPropagator
	// Handler answers /metrics: our instruments, the Go runtime, the process.
	Handler http.Handler

	shutdown []func(context.Context) error
}

// Setup starts telemetry. The error is a configuration fault
// (a [daemon.ConfigFault]); a collector that is away is none.
//
// Errors of OpenTelemetry's own go to cfg.Log; that is one setting for the
// whole process, so the last Setup has it.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	export, err := wantsTraces(os.Getenv)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	t := &Telemetry{
		Meter:      metricnoop.NewMeterProvider().Meter(scope),
		Tracer:     tracenoop.NewTracerProvider().Tracer(scope),
		Propagator: propagation.TraceContext{},
		Handler:    promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: promLog{cfg.Log}}),
	}
	if disabled(os.Getenv) {
		return t, nil
	}
	logInternals(cfg.Log)
	res := newResource(ctx, cfg)
	if err := t.startMetrics(registry, res); err != nil {
		return nil, err
	}
	if export {
		if err := t.startTraces(ctx, res, cfg.Log); err != nil {
			return nil, errors.Join(err, t.Shutdown(ctx))
		}
	}
	return t, nil
}

// disabled reports OTEL_SDK_DISABLED, which the SDK for Go leaves to us. As
// the specification has it, anything but "true" is false.
func disabled(getenv func(string) string) bool {
	return strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true")
}

// wantsTraces decides whether spans are exported. OpenTelemetry's default
// would be to send them to localhost; ours is to send them only where somebody
// asked for.
func wantsTraces(getenv func(string) string) (bool, error) {
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "":
		return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "", nil
	case "none":
		return false, nil
	case "otlp":
		return true, nil
	default:
		return false, &daemon.ConfigFault{Variable: "OTEL_TRACES_EXPORTER", Err: errors.New("must be otlp or none")}
	}
}

// newResource describes this process; what the environment says wins. A part
// that cannot be read is reported and left out.
func newResource(ctx context.Context, cfg Config) *resource.Resource {
	own := []resource.Option{resource.WithTelemetrySDK(), resource.WithAttributes(semconv.ServiceName(cfg.Service))}
	if cfg.Version != "" {
		own = append(own, resource.WithAttributes(semconv.ServiceVersion(cfg.Version)))
	}
	res, err := resource.New(ctx, append(own, resource.WithFromEnv())...)
	if err != nil {
		otel.Handle(err)
	}
	return res
}

func (t *Telemetry) startMetrics(registry *prometheus.Registry, res *resource.Resource) error {
	exporter, err := promexporter.New(
		promexporter.WithRegisterer(registry),
		promexporter.WithoutScopeInfo(), // there is one scope
	)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(res))
	t.Meter = provider.Meter(scope)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return nil
}

func (t *Telemetry) startTraces(ctx context.Context, res *resource.Resource, log zerolog.Logger) error {
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if os.Getenv(variable) == "grpc" {
			log.Warn().Str("variable", variable).Msg("traces go out by OTLP over HTTP; gRPC is not built in")
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return &daemon.ConfigFault{Variable: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Err: err}
	}
	// The sampler and the batching come from the environment.
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))
	t.Tracer = provider.Tracer(scope)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	log.Info().Msg("traces are exported by OTLP")
	return nil
}

// Shutdown sends what is left within the time of ctx and ends telemetry. It is
// the last thing that a program does; spans and counts after it go nowhere.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for _, end := range slices.Backward(t.shutdown) {
		errs = append(errs, end(ctx))
	}
	t.shutdown = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end of telemetry: %w", err)
	}
	return nil
}

// logInternals takes OpenTelemetry's own errors and warnings, which would go to
// standard error. An exporter whose collector is away fails every few seconds.
func logInternals(log zerolog.Logger) {
	failures := daemon.NewRepeated(log, "telemetry", failureEvery)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(failures.Failed))
	otel.SetLogger(funcr.New(func(_, text string) {
		log.Warn().Str("text", text).Msg("telemetry reports")
	}, funcr.Options{Verbosity: 1})) // OpenTelemetry's level of warnings
}

// promLog hears of a metric that could not be collected.
type promLog struct{ log zerolog.Logger }

func (l promLog) Println(values ...any) {
	l.log.Warn().Str("text", strings.TrimSpace(fmt.Sprintln(values...))).Msg("metrics handler reports")
}
