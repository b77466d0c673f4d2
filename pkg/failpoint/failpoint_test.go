package failpoint_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/failpoint"
)

func TestWhatFailsIsReadFromText(t *testing.T) {
	t.Parallel()
	list, err := failpoint.Parse(" lane-before-delete:exit@500, producer-after-append:err,")
	want := []failpoint.Failure{
		{Point: failpoint.LaneBeforeDelete, Action: failpoint.Exit, At: 500},
		{Point: failpoint.ProducerAfterAppend, Action: failpoint.Err, At: 1},
	}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%v, %v, want %v", list, err, want)
	}
	for _, f := range want {
		again, err := failpoint.Parse(f.String())
		if err != nil || len(again) != 1 || again[0] != f {
			t.Errorf("%s is read as %v, %v", f, again, err)
		}
	}
}

func TestWhatCannotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	for text, named := range map[string]string{
		"nowhere:exit":               `unknown place "nowhere"`,
		"lane-before-delete":         `unknown action ""`,
		"lane-before-delete:explode": `unknown action "explode"`,
		"lane-before-delete:exit@0":  `"0" in`,
		"lane-before-delete:exit@x":  `"x" in`,
	} {
		if _, err := failpoint.Parse(text); err == nil || !strings.Contains(err.Error(), named) {
			t.Errorf("%s: %v, want it to name %s", text, err, named)
		}
	}
}

func TestNoPlaceFailsInAnOrdinaryBuild(t *testing.T) {
	if failpoint.Enabled {
		t.Skip("built with the tag failpoints")
	}
	t.Setenv(failpoint.Variable, "lane-before-delete:exit")
	if err := failpoint.Hit(failpoint.LaneBeforeDelete); err != nil {
		t.Error(err)
	}
}
