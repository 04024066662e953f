// SPDX-License-Identifier: Apache-2.0
//
// Memory policies of an object's pages: what all who map it see. V6 of the lock map.
//
// Guarantee: a page has the policy that was set last for it; failing for want of memory changes nothing.
// Mechanism: ranges of pages that do not overlap, in a treap by their first page, under the latch of the pages. A new
//   range cuts those that it overlaps.
// Cost: a slab node for each range; O(log n) of the ranges, and as many more as a new one covers.
// Source: Linux mm/mempolicy.c `mpol_set_shared_policy`, `mpol_shared_policy_lookup`; treaps: Seidel and Aragon,
//   "Randomized search trees" (1996).

import RangeLocks

typealias PolicyRangeRef = UnsafeMutablePointer<PolicyRange>

/// A range of an object's pages with one policy. Guarded by the object's `pagesLatch`.
struct PolicyRange {
  let start: UInt64
  var end: UInt64
  /// The policy's number, not 0.
  let number: UInt16
  /// The root of a subtree has the highest.
  let priority: UInt64
  var left: PolicyRangeRef?
  var right: PolicyRangeRef?

  static func make(
    _ start: UInt64, _ end: UInt64, _ number: UInt16, _ context: Context
  ) -> PolicyRangeRef {
    // Reserved by the caller.
    let node = context.allocate(.policyRange).unsafelyUnwrapped
      .bindMemory(to: PolicyRange.self, capacity: 1)
    // Any number that is not in the order of the pages will do.
    let mixed = (start ^ start >> 31) &* 0x9e37_79b9_7f4a_7c15
    node.initialize(
      to: PolicyRange(start: start, end: end, number: number, priority: mixed ^ mixed >> 29))
    return node
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// The number of the policy of page `index`; 0 = the default. Takes the latch of the pages.
  func policy(of index: UInt64) -> UInt16 {
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.memoryPolicy, .pageTable, .read)
    var next = pointee.policies
    while let node = next {
      if index < node.pointee.start {
        next = node.pointee.left
      } else if index < node.pointee.end {
        return node.pointee.number
      } else {
        next = node.pointee.right
      }
    }
    return 0
  }

  /// Memory for one `setPolicy` of the calling thread; `false` = there is none.
  static func reservePolicy(_ context: Context) -> Bool {
    context.reserve(.policyRange, count: 2)
  }

  /// Gives the pages `[start, end)` a policy by its number, 0 = the default. Takes the latch of the pages.
  ///
  /// - Precondition: `reservePolicy`.
  func setPolicy(_ start: UInt64, _ end: UInt64, _ number: UInt16, _ context: Context) {
    pointee.pagesLatch.lock(.pageTable)
    LockMap.observe(.memoryPolicy, .pageTable, .write)
    let (below, rest) = Self.split(pointee.policies, start)
    let (covered, above) = Self.split(rest, end)
    // What an old range has behind the new one.
    var tail: PolicyRangeRef?
    let cut = Self.last(covered) ?? Self.last(below)
    if let cut, cut.pointee.end > end {
      tail = PolicyRange.make(end, cut.pointee.end, cut.pointee.number, context)
    }
    if let last = Self.last(below), last.pointee.end > start {
      let range = last
      range.pointee.end = start
    }
    let new = number == 0 ? nil : PolicyRange.make(start, end, number, context)
    let root = Self.join(Self.join(below, new), Self.join(tail, above))
    pointee.policies = root
    pointee.pagesLatch.unlock(.pageTable)
    Self.recycle(covered, context)
  }

  /// Lets all go. The object has no user any more.
  func releasePolicies(_ context: Context) {
    Self.recycle(pointee.policies, context)
    pointee.policies = nil
  }

  // MARK: the treap. Depth is O(log n), as priorities are as good as random.

  /// Ranges that begin below `key`, and the others.
  private static func split(
    _ root: PolicyRangeRef?, _ key: UInt64
  ) -> (below: PolicyRangeRef?, above: PolicyRangeRef?) {
    guard let root else { return (nil, nil) }
    if root.pointee.start < key {
      let (below, above) = split(root.pointee.right, key)
      root.pointee.right = below
      return (root, above)
    }
    let (below, above) = split(root.pointee.left, key)
    root.pointee.left = above
    return (below, root)
  }

  /// All of two treaps, the first of which is below the second.
  private static func join(_ below: PolicyRangeRef?, _ above: PolicyRangeRef?) -> PolicyRangeRef? {
    guard let below else { return above }
    guard let above else { return below }
    if below.pointee.priority > above.pointee.priority {
      let right = join(below.pointee.right, above)
      below.pointee.right = right
      return below
    }
    let left = join(below, above.pointee.left)
    above.pointee.left = left
    return above
  }

  private static func last(_ root: PolicyRangeRef?) -> PolicyRangeRef? {
    var node = root
    while let right = node?.pointee.right { node = right }
    return node
  }

  private static func recycle(_ root: PolicyRangeRef?, _ context: Context) {
    guard let root else { return }
    recycle(root.pointee.left, context)
    recycle(root.pointee.right, context)
    context.recycle(root, .policyRange)
  }
}
