module github.com/linkerhq/linker/connector

go 1.26.0

require github.com/linkerhq/linker/pkg v0.0.0

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/prometheus/client_golang v1.25.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/linkerhq/linker/pkg => ../pkg
