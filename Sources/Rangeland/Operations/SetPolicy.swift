// SPDX-License-Identifier: Apache-2.0
//
// Memory policies of mappings and of threads: V6.
//
// Range: [start, end), for writing; a look at one, for none.
// Linux: mm/mempolicy.c `do_mbind`, `mbind_range`, `do_set_mempolicy`, `do_get_mempolicy`.

import SystemPackage

extension AddressSpace {
  /// Gives the mappings of a range a memory policy (`mbind`). VMAs are split at its ends and merge where all
  /// is equal. The policy of shared memory is its object's, page by page, and seen through every mapping of it; a
  /// mapping that has the policy already sets none. No page moves: a space has one node.
  ///
  /// Takes the space lock for writing over the range.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  ///   - policy: `.default` = none of their own.
  ///   - strict: `EIO` when a page lies on a node that the policy does not name (`MPOL_MF_STRICT`). Pages
  ///     lie on node 0, so that is the fate of any present page under a policy that names none (`.local`), or
  ///     only others (`.relativeNodes`).
  /// - Throws: `EINVAL` for an unaligned start, a length that wraps, or a part of a special mapping that may not
  ///   be cut; `EFAULT` when nothing is mapped in the range, or for a hole unless the policy is the default one,
  ///   and then nothing has changed; `ENOMEM` without memory for the records of a split.
  public func setPolicy(
    at start: Address, length: UInt64, _ policy: MemoryPolicy, strict: Bool = false
  ) throws(Errno) {
    let before = LockMap.enter(.setPolicy)
    defer { LockMap.leave(before) }
    guard start.isPageAligned, let rounded = length.roundedUpToPage else { throw .invalidArgument }
    let (end, overflow) = start.addingReportingOverflow(rounded)
    guard !overflow, end >= start else { throw .invalidArgument }
    if end == start { return }
    guard start < Address.spaceEnd else { throw .badAddress }
    let number = try memory.policies.number(of: policy)
    let range = AddressRange(start: start, end: min(end, Address.spaceEnd))
    var hold = lock.write(range, .setPolicy)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.setPolicy)
    LockMap.observe(.layout, hold, range)
    try checkPolicy(range, reachesBeyond: end > Address.spaceEnd, policy, strict, context)
    var change = LayoutChange()
    var failure: Errno?
    var position = range.start
    while position < range.end && failure == nil {
      guard let next = layout.pointee.findNext(position), next.pointee.start < range.end else {
        break
      }
      do throws(Errno) {
        guard ObjectRef.reservePolicy(context) else { throw .noMemory }
        position = try modifyStep(
          from: max(position, next.pointee.start), to: range.end, hold, context, &change,
          {
            var flags = $0.pointee.flags
            flags.policy = number
            return .set(flags)
          }, confirms: true,
          { draft in
            // Linux `vma_replace_policy`: of the VMA as it is then, merged or cut. In one step with it, so that of two
            // threads that bind neighbours one was first for both the mappings and their object.
            if let backing = draft.pointee.backing,
              backing.pointee.object.pointee.kind == .sharedAnonymous,
              draft.pointee.flags.policy == number
            {
              let first = backing.pageIndex(draft.pointee.start)
              backing.pointee.object.setPolicy(
                first, first + (draft.pointee.end - draft.pointee.start) >> 12, number, context)
            }
          }
        ).range.end
      } catch {
        failure = error
      }
    }
    self.end(&change, hold, context)
    if let failure { throw failure }
  }

  /// Linux `queue_pages_range`: VMA by VMA first whether a hole follows, then its pages.
  private func checkPolicy(
    _ range: AddressRange, reachesBeyond: Bool, _ policy: MemoryPolicy, _ strict: Bool,
    _ context: Context
  ) throws(Errno) {
    var position = range.start
    var isFirst = true
    while position < range.end {
      let record = layout.pointee.findNext(position)
      let isHole = record.map { $0.pointee.start > position } ?? true
      if isHole && policy != .default { throw .badAddress }
      guard let record, record.pointee.start < range.end else {
        if isFirst { throw .badAddress }
        return
      }
      isFirst = false
      let piece = AddressRange(
        start: max(position, record.pointee.start), end: min(range.end, record.pointee.end))
      if policy != .default {
        let isFollowed =
          piece.end == range.end ? !reachesBeyond : layout.pointee.find(piece.end) != nil
        if !isFollowed { throw .badAddress }
      }
      if strict && policy != .default && policy.nodes & MemoryPolicy.allowedNodes == 0 {
        var isPresent = false
        tables.forEachEntry(in: piece, context) { _, entry in
          if entry.isPresent && entry.kind != .uncounted { isPresent = true }
        }
        if isPresent { throw .ioError }
      }
      position = piece.end
    }
  }

  /// The memory policy of the page at an address, that of its mapping or its shared object, `.default` if it has none of its own (`get_mempolicy` with
  /// `MPOL_F_ADDR`). Takes no lock.
  ///
  /// - Throws: `EFAULT` when nothing is mapped there.
  public func policy(at address: Address) throws(Errno) -> MemoryPolicy {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    let before = LockMap.enter(.query)
    defer { LockMap.leave(before) }
    guard let record = layout.pointee.find(address) else { throw .badAddress }
    // Linux `__get_vma_policy`: that of shared memory is its object's.
    if let backing = record.pointee.backing,
      backing.pointee.object.pointee.kind == .sharedAnonymous
    {
      return memory.policies[backing.pointee.object.policy(of: backing.pageIndex(address))]
    }
    return memory.policies[record.pointee.flags.policy]
  }

  /// The memory policy of the calling thread in this space (`set_mempolicy`, `get_mempolicy`). Kept by the
  /// kernel's number of the thread until it is set to `.default`. Takes no lock of the space.
  public var threadPolicy: MemoryPolicy {
    get { threadPolicies.own }
    set { threadPolicies.own = newValue }
  }
}
