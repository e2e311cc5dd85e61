// resolve NAME... asks Go's own resolver for everything that it can ask for.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"

	"conformance/say"
)

func main() {
	say.Limit()
	resolver := &net.Resolver{PreferGo: true}
	background := context.Background()
	for _, name := range os.Args[1:] {
		addresses, err := resolver.LookupHost(background, name)
		slices.Sort(addresses)
		if len(addresses) > 4 {
			fmt.Printf("%s: %d addresses %s\n", name, len(addresses), say.Outcome(err))
		} else {
			fmt.Printf("%s: %v %s\n", name, addresses, say.Outcome(err))
		}
		alias, err := resolver.LookupCNAME(background, name)
		fmt.Printf("%s: alias of %q %s\n", name, alias, say.Outcome(err))
	}
	texts, err := resolver.LookupTXT(background, "text.example.com")
	slices.Sort(texts)
	fmt.Printf("TXT: %q %s\n", texts, say.Outcome(err))
	_, services, err := resolver.LookupSRV(background, "shop", "tcp", "example.com")
	for _, service := range services {
		fmt.Printf("SRV: %s %d %d %d\n", service.Target, service.Port, service.Priority, service.Weight)
	}
	fmt.Printf("SRV: %s\n", say.Outcome(err))
	names, err := resolver.LookupAddr(background, "198.18.0.10")
	slices.Sort(names)
	fmt.Printf("PTR: %v %s\n", names, say.Outcome(err))
}
