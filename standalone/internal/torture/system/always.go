package system

import (
	"strings"

	"github.com/linkerhq/linker/pkg/failpoint"
)

// Always is what fails in every life of connectors and processors, as
// LINKER_FAILPOINTS takes it: answers of the log and of the mailbox that do not come,
// so that the same is written and deleted again. It is no fault in the sense of a
// verdict: nobody may notice anything, and it explains no copy.
func Always() string {
	times := []uint64{30, 90, 200, 450, 1000, 2500, 6000, 15000}
	var list []string
	for _, point := range []failpoint.Point{failpoint.ProducerAfterAppend, failpoint.LaneAfterStore, failpoint.LaneAfterDelete} {
		for _, at := range times {
			list = append(list, failpoint.Failure{Point: point, Action: failpoint.Err, At: at}.String())
		}
	}
	return strings.Join(list, ",")
}
