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
