package feed

import "net/http"

// SetTransport lets a test answer in place of the network.
func (f *Feed) SetTransport(t http.RoundTripper) { f.client.Transport = t }
