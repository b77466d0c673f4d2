package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/topology"
)

const networkTimeout = 2 * time.Second

// Network is what a meta server says to everybody: it is asked anew each time,
// and one that does not answer within 2 seconds knows nothing.
type Network struct {
	url    string
	client *http.Client
}

// NewNetwork returns the network of the meta server at a URL.
func NewNetwork(url string) *Network {
	return &Network{url: strings.TrimSuffix(url, "/"), client: &http.Client{Timeout: networkTimeout}}
}

// Apps lists the client apps.
func (n *Network) Apps() []App {
	var listed []struct {
		AppName      string `json:"appName"`
		AppID        string `json:"appId"`
		MasterUserID string `json:"masterUserId"`
		AuthEnabled  bool   `json:"authEnabled"`
	}
	if n.ask("/clientApps", &listed) != nil {
		return nil
	}
	apps := make([]App, 0, len(listed))
	for _, a := range listed {
		apps = append(apps, App{Name: a.AppName, AppID: a.AppID, Master: a.MasterUserID, AuthEnabled: a.AuthEnabled})
	}
	return apps
}

// Domains lists the domains that name a websocket, by the first that they name.
func (n *Network) Domains() []Domain {
	var listed []topology.Domain
	if n.ask("/domains", &listed) != nil {
		return nil
	}
	var domains []Domain
	for _, d := range listed {
		if urls := d.ClientURLs(); len(urls) > 0 {
			domains = append(domains, Domain{Name: d.Name, URL: urls[0]})
		}
	}
	return domains
}

func (n *Network) ask(path string, answer any) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, n.url+path, nil)
	if err != nil {
		return err
	}
	res, err := n.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the meta server: %s", res.Status)
	}
	return json.NewDecoder(res.Body).Decode(answer)
}
