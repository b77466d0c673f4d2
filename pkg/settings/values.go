package settings

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/viper"
)

// Values are the settings of one program, read once; they never change. Each
// method that returns one is for its kind of key: anything else is a mistake in
// the program, which panics.
type Values struct {
	Asked Asked // if it asks something, there are no values

	program Program
	layers  *viper.Viper // nobody writes to it any more
}

// Text returns the value of a Text, "" if there is none.
func (v *Values) Text(name string) string {
	v.of(Text, name)
	return v.layers.GetString(name)
}

// Share returns the value of a Text that is a number.
func (v *Values) Share(name string) float64 {
	value, _ := strconv.ParseFloat(v.Text(name), 64) // it was looked at when it was read
	return value
}

// Switch returns the value of a Switch.
func (v *Values) Switch(name string) bool {
	v.of(Switch, name)
	return v.layers.GetBool(name)
}

// Number returns the value of a Number.
func (v *Values) Number(name string) int64 {
	v.of(Number, name)
	return v.layers.GetInt64(name)
}

// Duration returns the value of a Duration.
func (v *Values) Duration(name string) time.Duration {
	v.of(Duration, name)
	return v.layers.GetDuration(name)
}

// List returns the value of a List, nil if there is none.
func (v *Values) List(name string) []string {
	v.of(List, name)
	list, _ := v.layers.Get(name).([]string)
	return list
}

func (v *Values) of(kind Kind, name string) {
	if k, known := v.program.find(name); !known || k.Kind != kind {
		panic(fmt.Sprintf("settings: %s has no %q of this kind", v.program.Name, name))
	}
}

// Attributes returns, for a log, what is set and no secret, as names and values.
func (v *Values) Attributes() []any {
	var attributes []any
	for _, k := range v.program.Keys {
		value := v.layers.Get(k.Name)
		if k.Secret || value == nil || value == "" {
			continue
		}
		switch set := value.(type) {
		case string:
			value = withoutUser(set)
		case []string:
			value = withoutUsers(set)
		case time.Duration:
			value = set.String()
		}
		attributes = append(attributes, strings.ReplaceAll(k.Name, "-", "_"), value)
	}
	return attributes
}

// withoutUser cuts from a URL what might be a password.
func withoutUser(text string) string {
	at := strings.LastIndex(text, "@")
	if at < 0 {
		return text
	}
	scheme := 0
	if i := strings.Index(text[:at], "://"); i >= 0 {
		scheme = i + len("://")
	}
	return text[:scheme] + text[at+1:]
}

func withoutUsers(list []string) []string {
	without := make([]string, len(list))
	for i, text := range list {
		without[i] = withoutUser(text)
	}
	return without
}
