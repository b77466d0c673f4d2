package catalog

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	version  prometheus.Gauge
	warnings prometheus.Gauge
	mistakes prometheus.Gauge
	loads    prometheus.Counter
	refusals prometheus.Counter
}

func newMetrics() metrics {
	return metrics{
		version: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "linker_catalog_version_milliseconds",
			Help: "Version of the description in force: about the time of its loading, in ms since 1970.",
		}),
		warnings: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "linker_catalog_warnings_count", Help: "Warnings about the version in force.",
		}),
		mistakes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "linker_catalog_mistakes_count",
			Help: "Mistakes in the file as it is now; above 0 an older version is in force.",
		}),
		loads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "linker_catalog_loads_total", Help: "Versions put in force since the start.",
		}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "linker_catalog_refusals_total", Help: "Versions refused since the start.",
		}),
	}
}

func (m metrics) register(registerer prometheus.Registerer) error {
	var errs []error
	for _, c := range []prometheus.Collector{m.version, m.warnings, m.mistakes, m.loads, m.refusals} {
		errs = append(errs, registerer.Register(c))
	}
	return errors.Join(errs...)
}

func (m metrics) inForce(version uint64, warnings int) {
	m.loads.Inc()
	m.version.Set(float64(version))
	m.warnings.Set(float64(warnings))
	m.mistakes.Set(0)
}

func (m metrics) refused(mistakes int) {
	m.mistakes.Set(float64(mistakes))
	if mistakes > 0 {
		m.refusals.Inc()
	}
}
