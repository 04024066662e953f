// SPDX-License-Identifier: Apache-2.0
//
// How far a search for an order has come, and the steps from there: the sequential model at work.
//
// A call is one step, with four exceptions:
// - MADV_DONTNEED throws pages away one by one, as Linux does: other threads' accesses may fall between two pages.
// - MADV_REMOVE takes pages out of shared memory one by one too.
// - msync looks at one mapping after the other, and holds nothing while it writes.
// - Under `.ranged` a mapping whose address the space chooses looks for a gap while others change the layout, takes
//   what it chose in one step, and maps in another (docs/design.md, section 4, rule 3). What it chose must be free
//   then; of every better place it must have seen that it was taken, each at an instant of its own. What is chosen
//   is taken for others who choose; a fixed mapping may still take it, whereupon the owner chooses again.

import Rangeland

/// Positions of all threads in a history, and the pages there.
struct HistoryState: Hashable {
  static var mostThreads: Int { 8 }

  var pages: PageModel
  /// By thread: calls that are done.
  var done = SIMD8<UInt8>()
  /// By thread: how far its next call is.
  private var progress = SIMD8<UInt8>()
  /// By thread: the pages that its next call has chosen, a bit each.
  private var chosen = SIMD8<UInt16>()
  /// By thread: the places that its next call has seen taken, a bit for the first page of each, and one for
  /// the place of its hint.
  private var ruledOut = SIMD8<UInt16>()

  init(pages: PageModel) { self.pages = pages }

  private static var sawHole: UInt8 { 0x80 }
  private static var hintBit: UInt16 { 0x8000 }

  /// What a thread's next call can do.
  enum Move: Equatable {
    /// The only thing that it can.
    case goOn
    /// Choosing the gap that begins at a page.
    case choose(Int)
    /// Finding no gap.
    case giveUp
  }

  // MARK: calls that choose first

  private static func isLooking(_ call: VerifyCall) -> Bool { call.kind == .mmap && !call.isFixed }

  private static func length(_ call: VerifyCall) -> Int { Int(call.length / 4096) }

  private static func bits(_ first: Int, _ length: Int) -> UInt16 {
    UInt16(truncatingIfNeeded: ((1 << length) - 1) << first)
  }

  private func isFree(_ first: Int, _ length: Int, _ taken: UInt16) -> Bool {
    first + length <= pages.count && Self.bits(first, length) & taken == 0
      && !(first..<first + length).contains { pages.isMapped($0) }
  }

  /// The pages that calls have chosen and not mapped yet.
  private var takenPages: UInt16 {
    var taken: UInt16 = 0
    for thread in 0..<Self.mostThreads { taken |= chosen[thread] }
    return taken
  }

  private func hint(_ call: VerifyCall, _ window: KernelProcess.AddressPair) -> Int? {
    call.at == 0 ? nil : Int((call.at - window.start) / 4096)
  }

  /// A thread that is inside a call that looks for a gap sees what is taken now.
  mutating func look(_ call: VerifyCall, _ thread: Int, _ window: KernelProcess.AddressPair) {
    guard Self.isLooking(call), chosen[thread] == 0 else { return }
    let taken = takenPages
    let length = Self.length(call)
    for first in 0..<pages.count where !isFree(first, length, taken) {
      ruledOut[thread] |= 1 << UInt16(first)
    }
    if let hint = hint(call, window), !isFree(hint, length, taken) {
      ruledOut[thread] |= Self.hintBit
    }
  }

  /// What a thread's next call can do now; the likeliest last.
  func moves(
    _ call: VerifyCall, _ thread: Int, _ window: KernelProcess.AddressPair, choosesFirst: Bool,
    likely: VerifyOutcome
  ) -> [Move] {
    guard choosesFirst, Self.isLooking(call), chosen[thread] == 0 else { return [.goOn] }
    var moves: [Move] = []
    let taken = takenPages
    let length = Self.length(call)
    let hint = hint(call, window)
    if let hint, isFree(hint, length, taken) { moves.append(.choose(hint)) }
    if hint == nil || ruledOut[thread] & Self.hintBit != 0 {
      var first = pages.count - 1
      // As long as all better places were seen taken.
      while first >= 0 {
        if isFree(first, length, taken) { moves.append(.choose(first)) }
        if ruledOut[thread] & 1 << UInt16(first) == 0 { break }
        first -= 1
      }
      if first < 0 { moves.append(.giveUp) }
    }
    let wanted: Move =
      likely.result < 0
      ? .giveUp : .choose(Int((UInt64(bitPattern: likely.result) &- window.start) / 4096))
    if let index = moves.firstIndex(of: wanted) { moves.append(moves.remove(at: index)) }
    return moves
  }

  // MARK: steps

  /// Lets a thread's next call make a move. Returns its outcome when that was its last.
  mutating func step(
    _ call: VerifyCall, _ thread: Int, _ window: KernelProcess.AddressPair, _ move: Move = .goOn
  ) -> VerifyOutcome? {
    let outcome: VerifyOutcome?
    let first = Int((call.at &- window.start) / 4096)
    let length = Self.length(call)
    switch call.kind {
    case .mmap where window.sharedMemory.start <= call.at:
      // The first call of a history.
      for place in 0..<PageModel.memoryPages { pages.setMemory(place, 0) }
      outcome = VerifyOutcome(result: Int64(call.at))
    case .mmap: outcome = map(call, first, length, thread, window, move)
    case .munmap:
      for page in first..<first + length { pages.unmap(page) }
      outcome = .success
    case .mprotect:
      var page = first
      while page < first + length, pages.isMapped(page) {
        pages.protect(page, call.protection)
        page += 1
      }
      outcome = page < first + length ? VerifyOutcome(.noMemory) : .success
    case .mapFile:
      takeFromChoosers(Self.bits(first, length))
      for i in 0..<length {
        pages.map(first + i, rights: call.protection, filePage: Int(call.value / 4096) + i)
      }
      outcome = VerifyOutcome(result: Int64(call.at))
    case .truncate:
      pages.resizeFile(Int(call.value / 4096))
      outcome = .success
    case .fork:
      var copied = VerifyOutcome.success
      copied.output = pages.child
      outcome = copied
    case .madvise where window.sharedMemory.start <= call.at:
      let place = Int((call.at - window.sharedMemory.start) / 4096) + Int(progress[thread])
      pages.setMemory(place, 0)
      progress[thread] += 1
      outcome = Int(progress[thread]) < length ? nil : .success
    case .mremap: outcome = remap(call, first, thread, window)
    case .madvise, .msync:
      let page = first + Int(progress[thread] & ~Self.sawHole)
      progress[thread] += 1
      if !pages.isMapped(page) {
        progress[thread] |= Self.sawHole
      } else if call.kind == .madvise {
        pages.drop(page)
      }
      if page + 1 < first + length {
        outcome = nil
      } else {
        outcome = progress[thread] & Self.sawHole != 0 ? VerifyOutcome(.noMemory) : .success
      }
    default:
      precondition(call.isAccess, "the sequential model does not know \(call.kind)")
      outcome =
        window.sharedMemory.start <= call.at
        ? accessMemory(call, Int((call.at - window.sharedMemory.start) / 4096))
        : access(call, first)
    }
    if outcome != nil {
      done[thread] += 1
      progress[thread] = 0
      chosen[thread] = 0
      ruledOut[thread] = 0
    }
    return outcome
  }

  /// Whoever has chosen pages that a fixed mapping takes has to choose again.
  private mutating func takeFromChoosers(_ bits: UInt16) {
    for other in 0..<Self.mostThreads where chosen[other] & bits != 0 { chosen[other] = 0 }
  }

  private mutating func remap(
    _ call: VerifyCall, _ first: Int, _ thread: Int, _ window: KernelProcess.AddressPair
  ) -> VerifyOutcome {
    let target = Int((call.target.offset - window.start) / 4096)
    let length = Int(call.newLength / 4096)
    let moved = VerifyOutcome(result: Int64(call.target.offset))
    if call.length == 0 {
      let place = Int((call.at - window.sharedMemory.start) / 4096)
      takeFromChoosers(Self.bits(target, length))
      for i in 0..<length { pages.map(target + i, memoryPage: place + i) }
      return moved
    }
    if abs(first - target) < length { return VerifyOutcome(.invalidArgument) }
    if !pages.isMapped(first) { return VerifyOutcome(.badAddress) }
    // Holes between them are not moved: what stands there stays.
    for i in 0..<length where pages.isMapped(first + i) {
      takeFromChoosers(Self.bits(target + i, 1))
      pages.move(first + i, to: target + i)
    }
    return moved
  }

  private mutating func accessMemory(_ call: VerifyCall, _ place: Int) -> VerifyOutcome {
    if call.kind == .load { return VerifyOutcome(result: Int64(pages.memory(place))) }
    pages.setMemory(place, call.value)
    return .success
  }

  private mutating func access(_ call: VerifyCall, _ page: Int) -> VerifyOutcome {
    guard pages.isMapped(page) else {
      return VerifyOutcome(signal: 11, code: 1, faultAddress: call.at)
    }
    let rights = pages.rights(page)
    guard call.kind == .load ? rights != 0 : rights & 2 != 0 else {
      return VerifyOutcome(signal: 11, code: 2, faultAddress: call.at)
    }
    if pages.isBehindEnd(page) {
      return VerifyOutcome(signal: 7, code: 2, faultAddress: call.at)
    }
    if call.kind == .load { return VerifyOutcome(result: Int64(pages.value(page))) }
    pages.store(page, call.value)
    return .success
  }

  private mutating func map(
    _ call: VerifyCall, _ first: Int, _ length: Int, _ thread: Int,
    _ window: KernelProcess.AddressPair, _ move: Move
  ) -> VerifyOutcome? {
    var start = first
    switch move {
    case .choose(let page):
      chosen[thread] = Self.bits(page, length)
      ruledOut[thread] = 0
      return nil
    case .giveUp: return VerifyOutcome(.noMemory)
    case .goOn: break
    }
    if call.isFixed {
      if call.isNoReplace, (first..<first + length).contains(where: { pages.isMapped($0) }) {
        return VerifyOutcome(.fileExists)
      }
      takeFromChoosers(Self.bits(first, length))
    } else if chosen[thread] != 0 {
      start = chosen[thread].trailingZeroBitCount
    } else {
      // In one step.
      let hint = hint(call, window).flatMap { isFree($0, length, 0) ? $0 : nil }
      guard let found = hint ?? pages.highestGap(length) else { return VerifyOutcome(.noMemory) }
      start = found
    }
    for page in start..<start + length {
      pages.map(page, rights: call.protection, shared: call.flags & VerifyCall.shared != 0)
    }
    return VerifyOutcome(result: Int64(window.start) + Int64(start) * 4096)
  }
}
