package system_test

import (
	"testing"

	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

func FuzzAnswersOfRedisAreReadOrRefused(f *testing.F) {
	for _, seed := range []string{"+OK\r\n", ":1\r\n", "-ERR no\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n", "*9\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		list, err := system.ReadRedis(answer)
		size := 0
		for _, text := range list {
			size += len(text)
		}
		if err != nil && list != nil || size > len(answer) {
			t.Errorf("got %d texts of %d bytes, %v", len(list), size, err)
		}
	})
}

func FuzzMetricsAreReadWhateverTheyAre(f *testing.F) {
	f.Add("# TYPE a counter\na 1\nb{lane=\"1\"} 2.5\n")
	f.Add("a{ NaN\n} 1\n +Inf")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range system.ParseMetrics(text) {
			if len(s.Name)+len(s.Labels) > len(text) {
				t.Errorf("got %+v", s)
			}
		}
	})
}
