package plot_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/bench/plot"
)

var update = flag.Bool("update", false, "writes the files in testdata anew")

// charts are one of each kind.
func charts() map[string]plot.Chart {
	return map[string]plot.Chart{
		"log.svg": {
			Title: "Latency & rate", X: plot.Axis{Name: "messages a second", Log: true}, Y: plot.Axis{Name: "ms", Log: true},
			Series: []plot.Series{
				{Name: "fast <p50>", Points: []plot.Point{{X: 1000, Y: 0.1}, {X: 10_000, Y: 0.2}, {X: 50_000, Y: 1.5}}},
				{Name: "fast p99", Dashed: true, Points: []plot.Point{{X: 1000, Y: 0.5}, {X: 10_000, Y: 2}, {X: 50_000, Y: 120}}},
				{Name: "relay", Colour: 1, Points: []plot.Point{{X: 1000, Y: 0.3}}},
			},
		},
		"linear.svg": {
			Title: "Latency and domains", X: plot.Axis{Name: "domains further"}, Y: plot.Axis{Name: "ms"},
			Series: []plot.Series{{Name: "p50", Points: []plot.Point{{X: 0, Y: 0.3}, {X: 1, Y: 0.6}, {X: 15, Y: 5.25}}}},
		},
	}
}

func TestChartsAreDrawn(t *testing.T) {
	t.Parallel()
	for name, c := range charts() {
		var got bytes.Buffer
		if err := c.WriteSVG(&got); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: got\n%s", name, got.String())
		}
	}
}

// TestPicturesAreXML looks at what the text in them says.
func TestPicturesAreXML(t *testing.T) {
	t.Parallel()
	for name, c := range charts() {
		var out bytes.Buffer
		if err := c.WriteSVG(&out); err != nil {
			t.Fatal(err)
		}
		var said []string
		lines := 0
		for d := xml.NewDecoder(&out); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			switch token := token.(type) {
			case xml.CharData:
				said = append(said, strings.TrimSpace(string(token)))
			case xml.StartElement:
				if token.Name.Local == "polyline" {
					lines++
				}
			}
		}
		text := strings.Join(said, "\n") + "\n"
		want := []string{c.Title, c.X.Name, c.Y.Name}
		for _, s := range c.Series {
			want = append(want, s.Name)
		}
		for _, word := range want {
			if !strings.Contains(text, "\n"+word+"\n") {
				t.Errorf("%s: nothing says %q in\n%s", name, word, text)
			}
		}
		if lines != len(c.Series) {
			t.Errorf("%s: got %d lines, expected %d", name, lines, len(c.Series))
		}
	}
}

func TestWhatCannotBeDrawnIsNamed(t *testing.T) {
	t.Parallel()
	log := plot.Axis{Name: "rate", Log: true}
	for want, c := range map[string]plot.Chart{
		"nothing to draw":    {Title: "empty"},
		"0: expected":        {Title: "zero", X: log, Series: []plot.Series{{Points: []plot.Point{{X: 0, Y: 1}}}}},
		"NaN: expected":      {Title: "none", Series: []plot.Series{{Points: []plot.Point{{X: 0, Y: math.NaN()}}}}},
		"+Inf: expected":     {Title: "much", Series: []plot.Series{{Points: []plot.Point{{X: math.Inf(1), Y: 1}}}}},
		`draw "zero" over r`: {Title: "zero", X: log, Series: []plot.Series{{Points: []plot.Point{{X: -1, Y: 1}}}}},
	} {
		if err := c.WriteSVG(io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}

func TestOnePointIsAChart(t *testing.T) {
	t.Parallel()
	for _, log := range []bool{true, false} {
		for _, v := range []float64{1, 1000, 0.001, 7} {
			var out bytes.Buffer
			c := plot.Chart{Title: "one", X: plot.Axis{Log: log}, Y: plot.Axis{Log: log}, Series: []plot.Series{{Points: []plot.Point{{X: v, Y: v}}}}}
			if err := c.WriteSVG(&out); err != nil || strings.Contains(out.String(), "NaN") || strings.Contains(out.String(), "Inf") {
				t.Errorf("%v, log %t: got %v\n%s", v, log, err, out.String())
			}
		}
	}
}
