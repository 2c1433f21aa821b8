// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tablePrefix begins the name of each of our tables; the tap's link index,
// which a namespace never gives twice, completes it.
const tablePrefix = "unikernel-"

// portsChain holds a rule for each forwarded port, whose comment is "PORT LABEL".
const portsChain = "ports"

// family is what the rules of one IP version differ in. The payloads are the
// offsets and lengths, in bytes, of fields of its header.
type family struct {
	table       nftables.TableFamily
	number      uint32 // of the kernel's NFPROTO
	source      expr.Payload
	destination expr.Payload
}

var families = []family{
	{nftables.TableFamilyIPv4, unix.NFPROTO_IPV4, networkField(12, 4), networkField(16, 4)},
	{nftables.TableFamilyIPv6, unix.NFPROTO_IPV6, networkField(8, 16), networkField(24, 16)},
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families[0]
	}
	return families[1]
}

func networkField(offset, length uint32) expr.Payload {
	return expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// The same of TCP and UDP.
var (
	destinationPort = expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	tcpFlags        = expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1}
)

var protocolNumbers = []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP}

// rules builds one of a tap's tables, which the kernel takes or refuses as a whole.
type rules struct {
	family
	conn    *nftables.Conn
	table   *nftables.Table
	tap     *tap
	guest   netip.Addr
	gateway netip.Addr
}

// addRules maps the namespace's ports to the guest behind t. It returns the
// name of the tables that do so, one for each IP version; deleting them undoes
// all of it.
func addRules(t *tap, ports []Port) (string, error) {
	conn, err := nftables.New()
	if err != nil {
		return "", fmt.Errorf("talk to nftables: %w", err)
	}
	name := tablePrefix + strconv.Itoa(t.link.Attrs().Index)
	for _, network := range t.networks() {
		r := &rules{
			family: familyOf(network.Addr()), conn: conn, tap: t,
			guest: on(network, guestHost), gateway: on(network, gatewayHost),
		}
		r.table = conn.AddTable(&nftables.Table{Name: name, Family: r.family.table})
		r.build(ports)
	}
	if err := conn.Flush(); err != nil {
		return "", fmt.Errorf("add nftables table %s: %w (bridge mode needs the kernel's nf_tables with NAT: modprobe nft_chain_nat nft_fib_ipv4 nft_fib_ipv6 nft_masq)",
			name, explainPermission(err))
	}
	return name, nil
}

func (r *rules) build(ports []Port) {
	r.guard()
	r.toGuest(ports)
	if r.guest.Is4() { // loopback and other links never meet in IPv6
		r.toLoopback()
		r.toSidecars()
	}
	r.fromGuest()
	r.clampMSS()
}

// guard drops what claims to come from another than the guest.
func (r *rules) guard() {
	chain := r.chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	allow := func(parts ...[]expr.Any) {
		r.add(chain, "", append([][]expr.Any{r.link(expr.MetaKeyIIF, expr.CmpOpEq)}, append(parts, accept())...)...)
	}
	allow(match(r.source, expr.CmpOpEq, r.guest.AsSlice()))
	if r.guest.Is4() { // who asks for an address has none yet
		const dhcpServer = 67
		nobody, everybody := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
		allow(match(r.source, expr.CmpOpEq, nobody.AsSlice()), match(r.destination, expr.CmpOpEq, everybody.AsSlice()),
			protocol(unix.IPPROTO_UDP), match(destinationPort, expr.CmpOpEq, binaryutil.BigEndian.PutUint16(dhcpServer)))
	} else { // neighbours are found from and by link-local addresses
		allow(match(r.source, expr.CmpOpEq, netip.IPv6Unspecified().AsSlice()))
		allow(masked(r.source, linkLocal))
	}
	r.add(chain, "", r.link(expr.MetaKeyIIF, expr.CmpOpEq), drop())
}

// linkLocal is RFC 4291's, which no router passes on.
var linkLocal = netip.MustParsePrefix("fe80::/16")

// toGuest sends what arrives at, or is sent to, any of the namespace's own
// addresses on a forwarded port to the guest.
func (r *rules) toGuest(ports []Port) {
	in := r.chain(portsChain, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	out := r.chain("ports-out", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest)
	notLoopback := []expr.Any{}
	if r.guest.Is6() {
		notLoopback = match(r.destination, expr.CmpOpNeq, netip.IPv6Loopback().AsSlice())
	}
	for _, p := range ports {
		port := binaryutil.BigEndian.PutUint16(p.Guest)
		comment := portComment(p)
		for _, number := range protocolNumbers {
			matches := [][]expr.Any{notLoopback, local(), protocol(number), match(destinationPort, expr.CmpOpEq, port), r.dnat(r.guest)}
			r.add(in, comment, matches...)
			r.add(out, comment, matches...)
		}
	}
}

// toLoopback leads the guest from its gateway's address to the namespace's
// loopback, where sidecars such as Connect's proxy listen. Its priority puts
// it behind the ports of all guests.
func (r *rules) toLoopback() {
	chain := r.chain("loopback", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest+10)
	for _, number := range protocolNumbers {
		r.add(chain, "", r.link(expr.MetaKeyIIF, expr.CmpOpEq), match(r.destination, expr.CmpOpEq, r.gateway.AsSlice()),
			protocol(number), r.dnat(netip.AddrFrom4([4]byte{127, 0, 0, 1})))
	}
}

// toSidecars lets the namespace's own processes see the guest as one of them:
// from the address that it asks. A UDP server on all addresses would else
// answer from another address than it was asked at.
func (r *rules) toSidecars() {
	chain := r.chain("sidecars", nftables.ChainTypeNAT, nftables.ChainHookInput, *nftables.ChainPriorityNATSource)
	for _, number := range protocolNumbers {
		// Who asks for an address is nobody yet.
		r.add(chain, "", r.link(expr.MetaKeyIIF, expr.CmpOpEq), match(r.source, expr.CmpOpEq, r.guest.AsSlice()),
			protocol(number), r.snatToDestination())
	}
}

// fromGuest gives what the guest sends the address of the link that it leaves
// by: the namespace's on its way out, the gateway's where it goes back to the
// guest. What comes from loopback gets the gateway's too, for the guest to answer.
func (r *rules) fromGuest() {
	chain := r.chain("source", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	r.add(chain, "", match(r.source, expr.CmpOpEq, r.guest.AsSlice()), masquerade())
	if r.guest.Is4() {
		loopback := netip.MustParsePrefix("127.0.0.0/8")
		r.add(chain, "", masked(r.source, loopback), r.link(expr.MetaKeyOIF, expr.CmpOpEq), masquerade())
	}
}

// clampMSS keeps TCP segments below the MTU of the way they take, since small
// network stacks discover no path MTU.
func (r *rules) clampMSS() {
	const maxSegment, maxSegmentOffset, maxSegmentLen = 2, 2, 2 // TCP option 2, RFC 9293
	chain := r.chain("mss", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityMangle)
	for _, side := range []expr.MetaKey{expr.MetaKeyIIF, expr.MetaKeyOIF} {
		r.add(chain, "", r.link(side, expr.CmpOpEq), protocol(unix.IPPROTO_TCP), syn(), []expr.Any{
			&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 2, Size: 2},
			&expr.Exthdr{SourceRegister: 1, Type: maxSegment, Offset: maxSegmentOffset, Len: maxSegmentLen, Op: expr.ExthdrOpTcpopt},
		})
	}
}

func (r *rules) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: &priority})
}

func (r *rules) add(chain *nftables.Chain, comment string, parts ...[]expr.Any) {
	rule := &nftables.Rule{Table: r.table, Chain: chain}
	for _, p := range parts {
		rule.Exprs = append(rule.Exprs, p...)
	}
	if comment != "" {
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	}
	r.conn.AddRule(rule)
}

// link compares a packet's link with the tap.
func (r *rules) link(side expr.MetaKey, op expr.CmpOp) []expr.Any {
	index := binaryutil.NativeEndian.PutUint32(uint32(r.tap.link.Attrs().Index))
	return []expr.Any{&expr.Meta{Key: side, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: index}}
}

// masked matches addresses by the whole bytes that the prefix p fixes.
func masked(field expr.Payload, p netip.Prefix) []expr.Any {
	field.Len = uint32(p.Bits() / 8)
	return match(field, expr.CmpOpEq, p.Addr().AsSlice()[:field.Len])
}

func match(field expr.Payload, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{&field, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

// local matches what goes to one of the namespace's own addresses.
func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

// syn matches segments that open a connection, in either direction.
func syn() []expr.Any {
	const synFlag = 0x02
	field := tcpFlags
	return []expr.Any{
		&field,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{synFlag}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{synFlag}},
	}
}

func (r *rules) dnat(to netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: r.number, RegAddrMin: 1},
	}
}

func (r *rules) snatToDestination() []expr.Any {
	field := r.destination
	return []expr.Any{&field, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: r.number, RegAddrMin: 1}}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// portComment tells whose port a rule forwards. The kernel keeps up to 256 bytes.
func portComment(p Port) string {
	const maxLabel = 100
	return fmt.Sprintf("%d %.*s", p.Guest, maxLabel, p.Label)
}

// forwardedPorts are the ports that other guests in the namespace have, with
// their labels. What guests left behind that are gone is removed on the way.
func forwardedPorts() (map[uint16]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("talk to nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", explainPermission(err))
	}
	ports := make(map[uint16]string)
	for _, table := range tables {
		index, err := strconv.Atoi(strings.TrimPrefix(table.Name, tablePrefix))
		if err != nil || !strings.HasPrefix(table.Name, tablePrefix) {
			continue
		}
		if err := addTablePorts(conn, table, index, ports); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

func addTablePorts(conn *nftables.Conn, table *nftables.Table, index int, ports map[uint16]string) error {
	_, err := netlink.LinkByIndex(index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return deleteTables(table.Name)
	}
	if err != nil {
		return fmt.Errorf("look for the tap of nftables table %s: %w", table.Name, err)
	}
	rules, err := conn.GetRules(table, &nftables.Chain{Name: portsChain, Table: table})
	if err != nil {
		return fmt.Errorf("list the ports of nftables table %s: %w", table.Name, err)
	}
	for _, rule := range rules {
		comment, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
		number, label, _ := strings.Cut(comment, " ")
		if port, err := strconv.ParseUint(number, 10, 16); err == nil {
			ports[uint16(port)] = label
		}
	}
	return nil
}

// deleteTables removes our tables of a name from the current namespace, as far
// as they are there.
func deleteTables(name string) error {
	for _, f := range families {
		conn, err := nftables.New()
		if err != nil {
			return fmt.Errorf("talk to nftables: %w", err)
		}
		conn.DelTable(&nftables.Table{Name: name, Family: f.table})
		err = conn.Flush()
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("delete nftables table %s: %w", name, explainPermission(err))
		}
	}
	return nil
}
