// Package plot draws lines in a plane as SVG: text is text, and pages may be light or
// dark.
package plot

import (
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// Chart is lines over one pair of axes.
type Chart struct {
	Title  string
	X, Y   Axis
	Series []Series
}

// Axis is one of the two.
type Axis struct {
	Name string
	Log  bool // each step is as many times the one before; values must be above 0
}

// Series is a line with a name. Those of one Colour belong together.
type Series struct {
	Name   string
	Colour int // from 0 on
	Dashed bool
	Points []Point // in their order
}

// Point is a value on each axis.
type Point struct{ X, Y float64 }

// The sizes, in pixels of a picture at its natural size.
const (
	width, height = 800, 420
	left, right   = 70, 190 // the names of the lines are at the right
	top, bottom   = 50, 60
	lineHeight    = 20
	ticksWanted   = 6 // of an axis, about
)

// The head is the same of all pictures.
const (
	head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title" font-family="ui-sans-serif, system-ui, sans-serif" font-size="13">
<title id="title">%s</title>
<style>%s
</style>
<rect class="bg" width="%d" height="%d"/>
`
	style = `
.bg { fill: #fff } text { fill: #1f2933 } .grid { stroke: #d9dee3 } .line { fill: none; stroke-width: 2; stroke-linejoin: round } .dashed { stroke-dasharray: 6 4 }
.c0 { stroke: #2b6cb0 } .c1 { stroke: #c05621 } .c2 { stroke: #2f855a } .c3 { stroke: #6b46c1 }
@media (prefers-color-scheme: dark) {
.bg { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d }
.c0 { stroke: #63b3ed } .c1 { stroke: #f6ad55 } .c2 { stroke: #68d391 } .c3 { stroke: #b794f4 }
}`
	colours = 4
)

// What cannot be drawn.
var (
	errNothing = errors.New("there is nothing to draw")
	errNoValue = errors.New("expected values that are numbers, above 0 on an axis that is logarithmic")
)

// WriteSVG draws the chart.
func (c Chart) WriteSVG(w io.Writer) error {
	x, err := newScale(c.X, c.each(func(p Point) float64 { return p.X }), left, width-right)
	if err != nil {
		return fmt.Errorf("draw %q over %s: %w", c.Title, c.X.Name, err)
	}
	y, err := newScale(c.Y, c.each(func(p Point) float64 { return p.Y }), height-bottom, top)
	if err != nil {
		return fmt.Errorf("draw %s of %q: %w", c.Y.Name, c.Title, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, head, width, height, width, height, html.EscapeString(c.Title), style, width, height)
	text(&b, left, 28, "start", 16, c.Title)
	for _, tick := range x.ticks {
		at := x.at(tick)
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", at, top, at, height-bottom)
		text(&b, at, height-bottom+18, "middle", 13, number(tick))
	}
	for _, tick := range y.ticks {
		at := y.at(tick)
		fmt.Fprintf(&b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", left, at, width-right, at)
		text(&b, left-8, at+4, "end", 13, number(tick))
	}
	text(&b, (left+width-right)/2, height-16, "middle", 13, c.X.Name)
	fmt.Fprintf(&b, `<g transform="rotate(-90 16 %d)">`, (top+height-bottom)/2)
	text(&b, 16, (top+height-bottom)/2, "middle", 13, c.Y.Name)
	b.WriteString("</g>\n")
	for n, s := range c.Series {
		s.draw(&b, x, y, top+10+n*lineHeight)
	}
	b.WriteString("</svg>\n")
	_, err = io.WriteString(w, b.String())
	return err
}

// draw draws the line, and its name at a height of its own.
func (s Series) draw(b *strings.Builder, x, y scale, at int) {
	class := "line c" + strconv.Itoa(s.Colour%colours)
	if s.Dashed {
		class += " dashed"
	}
	var points []string
	for _, p := range s.Points {
		points = append(points, fmt.Sprintf("%.1f,%.1f", x.at(p.X), y.at(p.Y)))
	}
	fmt.Fprintf(b, `<polyline class="%s" points="%s"/>`+"\n", class, strings.Join(points, " "))
	for _, p := range s.Points {
		fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="2"/>`+"\n", strings.TrimSuffix(class, " dashed"), x.at(p.X), y.at(p.Y))
	}
	fmt.Fprintf(b, `<line class="%s" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", class, width-right+14, at, width-right+42, at)
	text(b, width-right+50, float64(at)+4, "start", 13, s.Name)
}

func text(b *strings.Builder, x, y float64, anchor string, size int, words string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>`+"\n", x, y, anchor, size, html.EscapeString(words))
}

// each is a value of all points.
func (c Chart) each(of func(Point) float64) []float64 {
	var all []float64
	for _, s := range c.Series {
		for _, p := range s.Points {
			all = append(all, of(p))
		}
	}
	return all
}

// scale says where on the picture a value is.
type scale struct {
	log      bool
	low, top float64 // values; of a logarithmic one their logarithms
	from, to float64 // pixels
	ticks    []float64
}

func newScale(a Axis, values []float64, from, to float64) (scale, error) {
	if len(values) == 0 {
		return scale{}, errNothing
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) || a.Log && v <= 0 {
			return scale{}, fmt.Errorf("%v: %w", v, errNoValue)
		}
		low, high = min(low, v), max(high, v)
	}
	s := scale{log: a.Log, from: from, to: to}
	if a.Log {
		s.decades(low, high)
	} else {
		s.steps(min(low, 0), high)
	}
	return s, nil
}

// decades has ticks at the powers of ten, and between them where there are few.
func (s *scale) decades(low, high float64) {
	s.low, s.top = math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	if s.top == s.low {
		s.top++
	}
	between := []float64{1, 2, 5}
	if s.top-s.low > 3 {
		between = between[:1]
	}
	for power := s.low; power <= s.top; power++ {
		for _, n := range between {
			if tick := n * math.Pow(10, power); power < s.top || n == 1 {
				s.ticks = append(s.ticks, tick)
			}
		}
	}
}

// steps has ticks at round numbers, the same step apart.
func (s *scale) steps(low, high float64) {
	if high == low {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/ticksWanted)))
	for _, n := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*n) <= ticksWanted {
			step *= n
			break
		}
	}
	first, last := math.Floor(low/step), math.Ceil(high/step)
	s.low, s.top = first*step, last*step
	for n := first; n <= last; n++ {
		s.ticks = append(s.ticks, n*step)
	}
}

func (s scale) at(value float64) float64 {
	if s.log {
		value = math.Log10(value)
	}
	return s.from + (value-s.low)/(s.top-s.low)*(s.to-s.from)
}

// number writes a value, with commas between its thousands.
func number(v float64) string {
	digits := strconv.FormatFloat(math.Round(v*1e9)/1e9, 'f', -1, 64)
	whole, rest, fraction := strings.Cut(digits, ".")
	for at := len(whole) - 3; at > 0 && whole[at-1] != '-'; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	if fraction {
		return whole + "." + rest
	}
	return whole
}
