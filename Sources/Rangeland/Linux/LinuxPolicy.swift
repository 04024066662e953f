// SPDX-License-Identifier: Apache-2.0
//
// `mbind`, `set_mempolicy` and `get_mempolicy` with raw arguments. Masks of nodes are read from and written to
// the space.
//
// Source: Linux mm/mempolicy.c `kernel_mbind`, `kernel_set_mempolicy`, `kernel_get_mempolicy`, `get_nodes`.

import SystemPackage

extension AddressSpace {
  /// address, length, `MPOL_*`, address of the mask, bits in it plus one, `MPOL_MF_*`.
  func linuxBind(_ arguments: LinuxArguments) throws(Errno) {
    try bind(arguments) { () throws(Errno) in
      try linuxNodes(at: arguments.fourth, arguments.fifth)
    }
  }

  /// `mbind` with a mask that the caller reads when it is its turn.
  package func bind(
    _ arguments: LinuxArguments, nodes readNodes: () throws(Errno) -> UInt64
  ) throws(Errno) {
    let (start, length, mode) = (arguments.first, arguments.second, arguments.third)
    let decoded = try decode(mode)
    let nodes = try readNodes()
    let flags = UInt32(truncatingIfNeeded: arguments.sixth)
    // MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL; the last one needs a privilege that no space has.
    if flags & ~7 != 0 { throw .invalidArgument }
    if flags & 4 != 0 { throw .notPermitted }
    guard start.isPageAligned else { throw .invalidArgument }
    // A length that rounds to 0 does nothing, whatever the policy; one that wraps is refused before it.
    let rounded = (length &+ 4095) & ~4095
    let end = start &+ rounded
    if end < start { throw .invalidArgument }
    if end == start { return }
    let policy = try MemoryPolicy(decoded.mode, flags: decoded.flags, nodes: nodes)
    // MPOL_MF_MOVE moves what MPOL_MF_STRICT would refuse.
    try setPolicy(at: start, length: rounded, policy, strict: flags & 3 == 1)
  }

  /// `MPOL_*`, address of the mask, bits in it plus one.
  func linuxSetPolicy(_ arguments: LinuxArguments) throws(Errno) {
    try setThreadPolicy(arguments.first) { () throws(Errno) in
      try linuxNodes(at: arguments.second, arguments.third)
    }
  }

  /// `set_mempolicy` with a mask that the caller reads when it is its turn.
  package func setThreadPolicy(
    _ mode: UInt64, nodes readNodes: () throws(Errno) -> UInt64
  ) throws(Errno) {
    let decoded = try decode(mode)
    let nodes = try readNodes()
    threadPolicy = try MemoryPolicy(decoded.mode, flags: decoded.flags, nodes: nodes)
  }

  /// Where the mode goes, where the mask goes, bits in it, an address, `MPOL_F_*`.
  func linuxGetPolicy(_ arguments: LinuxArguments) throws(Errno) {
    let (modeAt, maskAt, bits) = (arguments.first, arguments.second, arguments.third)
    let (mode, nodes) = try linuxPolicy(arguments)
    do throws(AccessFault) {
      if modeAt != 0 { try store(mode, at: modeAt) }
      if maskAt != 0 {
        // Whole words, as many as the bits need; what is behind the nodes there are is 0.
        for word in 0..<min((bits + 63) / 64, 16) {
          try store(word == 0 ? nodes : 0, at: maskAt + word * 8)
        }
      }
    } catch {
      throw .badAddress
    }
  }

  /// `get_mempolicy`, whose answers the caller stores where they go.
  package func linuxPolicy(
    _ arguments: LinuxArguments
  ) throws(Errno) -> (mode: Int32, nodes: UInt64) {
    let (maskAt, bits) = (arguments.second, arguments.third)
    let (address, flags) = (arguments.fourth, arguments.fifth)
    let (ofNode, ofAddress, allowed): (UInt64, UInt64, UInt64) = (1, 2, 4)
    // A space has one node.
    if maskAt != 0 && bits < 1 { throw .invalidArgument }
    if flags & ~(ofNode | ofAddress | allowed) != 0 { throw .invalidArgument }
    if flags & allowed != 0 {
      if flags & (ofNode | ofAddress) != 0 { throw .invalidArgument }
      return (0, MemoryPolicy.allowedNodes)
    }
    let policy: MemoryPolicy
    if flags & ofAddress != 0 {
      policy = try self.policy(at: address)
    } else {
      if address != 0 { throw .invalidArgument }
      policy = threadPolicy
    }
    var mode: Int32 = 0
    if flags & ofNode == 0 {
      mode = policy.mode.rawValue | policy.flags.rawValue
    } else if flags & ofAddress != 0 {
      // The node of a page, which is brought in for that.
      try bringIn(address)
    } else if policy.mode != .interleave && policy.mode != .weightedInterleave {
      // The node that comes next, which only interleaving threads have.
      throw .invalidArgument
    }
    return (mode, policy.shownNodes)
  }

  /// Brings a page in as somebody does who asks for it and is no processor (Linux `lookup_node`, `get_user_pages_fast`):
  /// of one that a processor could read already, its mapping's rights are not asked for.
  private func bringIn(_ address: Address) throws(Errno) {
    let page = address & ~4095
    if hasReadable(page) { return }
    let refusal = withUnsafeTemporaryAllocation(of: PinnedPage.self, capacity: 1) { pages in
      let (count, refusal) = pin(page, .read, into: pages)
      if count > 0 { unpin(pages, dirty: false) }
      return refusal
    }
    if let refusal { throw refusal }
  }

  /// Whether a page, other than that of zeros, is there to be read.
  private func hasReadable(_ page: Address) -> Bool {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    guard let leaf = tables.latchLeaf(page, creating: false, context) else { return false }
    defer { leaf.unlockLeaf() }
    let entry = leaf.latchedEntry(page)
    return entry.isPresent && entry.isReadable && entry.frame != 0
  }

  /// Linux `sanitize_mpol_flags`.
  private func decode(
    _ raw: UInt64
  ) throws(Errno) -> (mode: MemoryPolicy.Mode, flags: MemoryPolicy.Flags) {
    let word = Int32(truncatingIfNeeded: raw)
    let flags = MemoryPolicy.Flags(rawValue: word & MemoryPolicy.Flags.all.rawValue)
    guard let mode = MemoryPolicy.Mode(rawValue: word & ~MemoryPolicy.Flags.all.rawValue) else {
      throw .invalidArgument
    }
    try flags.check(for: mode)
    return (mode, flags)
  }

  /// Linux `get_nodes`. Nodes from 64 on do not exist.
  private func linuxNodes(at mask: Address, _ count: UInt64) throws(Errno) -> UInt64 {
    let bits = count &- 1
    if bits == 0 || mask == 0 { return 0 }
    if bits > 4096 * 8 { throw .invalidArgument }
    var nodes: UInt64 = 0
    for word in (0..<(bits + 63) / 64).reversed() {
      do throws(AccessFault) { nodes = try load(UInt64.self, at: mask + word * 8) } catch {
        throw .badAddress
      }
      if word == bits / 64 { nodes &= 1 << (bits % 64) - 1 }
      if word > 0 && nodes != 0 { throw .invalidArgument }
    }
    return nodes
  }
}
