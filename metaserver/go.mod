module github.com/linkerhq/linker/metaserver

go 1.26

require github.com/linkerhq/linker/pkg v0.0.0

replace github.com/linkerhq/linker/pkg => ../pkg
