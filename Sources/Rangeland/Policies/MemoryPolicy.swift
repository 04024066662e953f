// SPDX-License-Identifier: Apache-2.0
//
// On which memory nodes pages should lie. V6 of the lock map.
//
// A space keeps these books as Linux does, so that a guest's calls are answered, split and merged as there. Its
// frames all lie on one node, number 0, so no page is ever moved.
// Source: Linux mm/mempolicy.c `mpol_new`, `mpol_set_nodemask`, `sanitize_mpol_flags`.

import SystemPackage

/// A memory policy (Linux `struct mempolicy`).
public struct MemoryPolicy: Sendable, Hashable {
  /// Linux `MPOL_*`.
  public enum Mode: Int32, Sendable, Hashable, CaseIterable {
    /// None: that of the thread, or else the node where a page is first touched.
    case `default` = 0
    /// This node, or others when it is full (`MPOL_PREFERRED`).
    case preferred = 1
    /// These nodes and no others (`MPOL_BIND`).
    case bind = 2
    /// Page by page the next of these (`MPOL_INTERLEAVE`).
    case interleave = 3
    /// Where a page is first touched, whatever the thread's policy is (`MPOL_LOCAL`).
    case local = 4
    /// These nodes, or others when they are full (`MPOL_PREFERRED_MANY`).
    case preferredMany = 5
    /// As `interleave`, in proportion to weights (`MPOL_WEIGHTED_INTERLEAVE`).
    case weightedInterleave = 6
  }

  /// Linux `MPOL_F_*` that a mode may come with.
  public struct Flags: OptionSet, Sendable, Hashable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }
    /// The nodes mean what they say, whatever nodes are allowed later (`MPOL_F_STATIC_NODES`).
    public static let staticNodes = Flags(rawValue: 1 << 15)
    /// The nodes are counted among those that are allowed (`MPOL_F_RELATIVE_NODES`).
    public static let relativeNodes = Flags(rawValue: 1 << 14)
    /// Pages may be moved to where they are used (`MPOL_F_NUMA_BALANCING`).
    public static let balancing = Flags(rawValue: 1 << 13)
    static let all = Flags(rawValue: 7 << 13)

    /// Refuses flags that exclude each other or that the mode does not take (Linux `sanitize_mpol_flags`).
    func check(for mode: Mode) throws(Errno) {
      if isSuperset(of: [.staticNodes, .relativeNodes]) { throw .invalidArgument }
      if contains(.balancing) && mode != .bind && mode != .preferredMany { throw .invalidArgument }
    }
  }

  /// How nodes are chosen.
  public let mode: Mode
  /// What the nodes mean.
  public let flags: Flags
  /// Bit n stands for node n: as asked for with `staticNodes` or `relativeNodes`, otherwise as allowed.
  public let nodes: UInt64

  /// The nodes of a space.
  static var allowedNodes: UInt64 { 1 }

  /// As `get_mempolicy` tells them: as asked for where they are kept so, otherwise of `preferred` the one that is
  /// preferred (Linux `mpol_store_user_nodemask`, `mpol_new_preferred`).
  var shownNodes: UInt64 {
    mode == .preferred && flags.isDisjoint(with: [.staticNodes, .relativeNodes])
      ? nodes & (0 &- nodes) : nodes
  }

  /// No policy.
  public static let `default` = MemoryPolicy(checkedMode: .default, flags: [], nodes: 0)

  private init(checkedMode: Mode, flags: Flags, nodes: UInt64) {
    (mode, self.flags, self.nodes) = (checkedMode, flags, nodes)
  }

  /// Makes a policy, as Linux makes it.
  ///
  /// - Throws: `EINVAL` for flags that exclude each other or that the mode does not take, for nodes where the
  ///   mode takes none, and when none of the nodes exists where it needs one.
  public init(_ mode: Mode, flags: Flags = [], nodes: UInt64 = 0) throws(Errno) {
    let isFixed = !flags.isDisjoint(with: [.staticNodes, .relativeNodes])
    try flags.check(for: mode)
    var mode = mode
    switch mode {
    case .default:
      if nodes != 0 { throw .invalidArgument }
      self = .default
      return
    case .preferred where nodes == 0:
      if isFixed { throw .invalidArgument }
      mode = .local
    case .local: if nodes != 0 || isFixed { throw .invalidArgument }
    default: if nodes == 0 { throw .invalidArgument }
    }
    if mode != .local && !flags.contains(.relativeNodes) && nodes & Self.allowedNodes == 0 {
      throw .invalidArgument
    }
    self.init(
      checkedMode: mode, flags: flags,
      nodes: isFixed || mode == .local ? nodes : nodes & Self.allowedNodes)
  }
}
