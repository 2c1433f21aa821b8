// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"net"

	"github.com/hashicorp/nomad/api"
)

// nomadOptions are the options by which Nomad's own tools find and trust an
// agent. What is not given comes from the environment: NOMAD_ADDR,
// NOMAD_TOKEN, NOMAD_NAMESPACE, NOMAD_REGION, NOMAD_CACERT and the rest.
type nomadOptions struct {
	address, region, namespace, token          string
	caCert, caPath, clientCert, clientKey, sni string
	skipVerify                                 bool
}

const nomadOptionsHelp = `
Options to reach Nomad, as of its own tools (else from NOMAD_ADDR, NOMAD_TOKEN
and the rest of the environment):

  -address=ADDR, -region=REGION, -namespace=NAMESPACE, -token=TOKEN,
  -ca-cert=FILE, -ca-path=DIR, -client-cert=FILE, -client-key=FILE,
  -tls-server-name=NAME, -tls-skip-verify
`

func (o *nomadOptions) register(f *flag.FlagSet) {
	f.StringVar(&o.address, "address", "", "")
	f.StringVar(&o.region, "region", "", "")
	f.StringVar(&o.namespace, "namespace", "", "")
	f.StringVar(&o.token, "token", "", "")
	f.StringVar(&o.caCert, "ca-cert", "", "")
	f.StringVar(&o.caPath, "ca-path", "", "")
	f.StringVar(&o.clientCert, "client-cert", "", "")
	f.StringVar(&o.clientKey, "client-key", "", "")
	f.StringVar(&o.sni, "tls-server-name", "", "")
	f.BoolVar(&o.skipVerify, "tls-skip-verify", false, "")
}

// config is how Nomad is reached.
func (o *nomadOptions) config() *api.Config {
	config := api.DefaultConfig()
	tls := config.TLSConfig
	for _, set := range []struct {
		to    *string
		value string
	}{
		{&config.Address, o.address}, {&config.Region, o.region},
		{&config.Namespace, o.namespace}, {&config.SecretID, o.token},
		{&tls.CACert, o.caCert}, {&tls.CAPath, o.caPath}, {&tls.ClientCert, o.clientCert},
		{&tls.ClientKey, o.clientKey}, {&tls.TLSServerName, o.sni},
	} {
		if set.value != "" {
			*set.to = set.value
		}
	}
	tls.Insecure = tls.Insecure || o.skipVerify
	return config
}

// explain says where Nomad was looked for, if nobody is there.
func (o *nomadOptions) explain(err error) error {
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" {
		return fmt.Errorf("%w\nNomad is looked for at %s; -address or NOMAD_ADDR says where it is", err, o.config().Address)
	}
	return err
}

// client makes a client of Nomad's API. The namespace and region of a job, if
// it names them, are set by the caller.
func (o *nomadOptions) client() (*api.Client, error) {
	config := o.config()
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("reach Nomad at %s: %w", config.Address, err)
	}
	return client, nil
}
