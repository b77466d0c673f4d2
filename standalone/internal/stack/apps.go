package stack

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/linkerhq/linker/standalone/internal/console"
)

const appsWithin = 2 * time.Second

// appsFrom asks the meta server for the client apps, as any client of its public
// endpoints does. When it does not answer, the page offers none.
func appsFrom(metaURL string) func() []console.App {
	client := &http.Client{Timeout: appsWithin}
	return func() []console.App {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, metaURL+"/clientApps", nil)
		if err != nil {
			return nil
		}
		res, err := client.Do(req)
		if err != nil {
			return nil
		}
		defer func() { _ = res.Body.Close() }()
		var listed []struct {
			AppName      string `json:"appName"`
			AppID        string `json:"appId"`
			MasterUserID string `json:"masterUserId"`
			AuthEnabled  bool   `json:"authEnabled"`
		}
		if json.NewDecoder(res.Body).Decode(&listed) != nil {
			return nil
		}
		apps := make([]console.App, 0, len(listed))
		for _, a := range listed {
			apps = append(apps, console.App{Name: a.AppName, AppID: a.AppID, Master: a.MasterUserID, AuthEnabled: a.AuthEnabled})
		}
		return apps
	}
}
