module github.com/linkerhq/linker/standalone

go 1.26

require (
	github.com/linkerhq/linker/connector v0.0.0
	github.com/linkerhq/linker/metaserver v0.0.0
	github.com/linkerhq/linker/pkg v0.0.0
	github.com/linkerhq/linker/processor v0.0.0
)

replace (
	github.com/linkerhq/linker/connector => ../connector
	github.com/linkerhq/linker/metaserver => ../metaserver
	github.com/linkerhq/linker/pkg => ../pkg
	github.com/linkerhq/linker/processor => ../processor
)
