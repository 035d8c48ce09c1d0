package config

import _ "embed"

// Reference is the configuration file with every key: its unit, default,
// range and reason. It is a valid configuration.
//
//go:embed reference.toml
var Reference string

// Minimal is the least configuration that works.
//
//go:embed minimal.toml
var Minimal string

// ReferenceLB7 is the file of lb7d with every key, as Reference is of lb4d's.
//
//go:embed reference-lb7d.toml
var ReferenceLB7 string
