// SPDX-License-Identifier: Apache-2.0
//
// Advice that is an attribute of mappings, by which they split and merge.
//
// Range: [start, end), for writing.
// Linux: mm/madvise.c `madvise_vma_behavior`, `madvise_update_vma`; mm/ksm.c `ksm_madvise`; mm/khugepaged.c
// `hugepage_madvise`.

import SystemPackage

extension AddressSpace {
  func adviseAttribute(_ advice: Advice, _ range: AddressRange) throws(Errno) {
    let before = LockMap.enter(.setAdvice)
    defer { LockMap.leave(before) }
    var hold = lock.write(range, .setAdvice)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.setAdvice)
    LockMap.observe(.layout, hold, range)
    var change = LayoutChange()
    var failure: Errno?
    var isComplete = true
    var position = range.start
    while position < range.end && failure == nil {
      guard let record = layout.pointee.findNext(position), record.pointee.start < range.end else {
        isComplete = false
        break
      }
      if record.pointee.start > position { isComplete = false }
      do throws(Errno) {
        position = try modifyStep(
          from: max(position, record.pointee.start), to: range.end, hold, context, &change
        ) { $0.pointee.advised(advice) }.range.end
      } catch {
        // Linux: "kernel resources, such as slab, are temporarily unavailable".
        failure = error == .noMemory ? .resourceTemporarilyUnavailable : error
      }
    }
    end(&change, hold, context)
    if let failure { throw failure }
    if !isComplete { throw .noMemory }
  }
}

extension VMARecord {
  /// What advice makes of the VMA's flags.
  fileprivate func advised(_ advice: Advice) -> FlagsDecision {
    if isSealed(against: advice) { return .refuse(.notPermitted) }
    var flags = flags
    switch advice {
    case .normal:
      flags.remove(.randomAccess)
      flags.remove(.sequentialAccess)
    case .sequential:
      flags.remove(.randomAccess)
      flags.insert(.sequentialAccess)
    case .random:
      flags.remove(.sequentialAccess)
      flags.insert(.randomAccess)
    case .dontFork: flags.insert(.dontFork)
    case .doFork:
      // Linux refuses devices (`VM_IO`).
      if flags.contains(.device) { return .refuse(.invalidArgument) }
      flags.remove(.dontFork)
    case .wipeOnFork:
      if backing != nil && !(flags.contains(.special) && !flags.contains(.shared)) {
        return .refuse(.invalidArgument)
      }
      flags.insert(.wipeOnFork)
    case .keepOnFork: flags.remove(.wipeOnFork)
    case .dontDump: flags.insert(.dontDump)
    case .doDump:
      if flags.contains(.special) { return .refuse(.invalidArgument) }
      flags.remove(.dontDump)
    case .mergeable:
      // What cannot be merged is left as it is.
      if flags.isDisjoint(with: .unsuitableForMerging) { flags.insert(.mergeable) }
    case .unmergeable: flags.remove(.mergeable)
    case .hugePage:
      flags.remove(.noHugePage)
      flags.insert(.hugePage)
    case .noHugePage:
      flags.remove(.hugePage)
      flags.insert(.noHugePage)
    default: preconditionFailure("advice \(advice) is no attribute")
    }
    return .set(flags)
  }
}

extension VMAFlags {
  /// Linux `vma_ksm_compatible`: shared memory and special mappings are not.
  fileprivate static let unsuitableForMerging = VMAFlags(rawValue: 0x1088)
}
