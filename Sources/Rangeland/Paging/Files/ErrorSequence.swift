// SPDX-License-Identifier: Apache-2.0
//
// Errors of writing back, each reported once to everybody who has the file open.
//
// Guarantee: after an error is noted, each cursor that was taken before reports it at its next check, once; one that is
//   taken later reports it too if nobody had yet.
// Mechanism: one word: errno in the low 12 bits, "somebody has seen it", and a count that grows when an error is noted
//   after the last was seen.
// Source: Linux lib/errseq.c.

import Synchronization
import SystemPackage

struct ErrorSequence: ~Copyable {
  private let word = Atomic<UInt64>(0)

  private static var errnoMask: UInt64 { 0xfff }
  private static var seen: UInt64 { 0x1000 }
  private static var count: UInt64 { 0x2000 }

  /// Notes an error.
  borrowing func note(_ error: Errno) {
    var old = word.load(ordering: .relaxed)
    while true {
      var new = old & ~(Self.errnoMask | Self.seen) | UInt64(UInt32(bitPattern: error.rawValue))
      if old & Self.seen != 0 { new &+= Self.count }
      if new == old { return }
      let (done, now) = word.weakCompareExchange(
        expected: old, desired: new, ordering: .releasing)
      if done { return }
      old = now
    }
  }

  /// A cursor for somebody who opens the file now.
  borrowing func sample() -> UInt64 {
    let now = word.load(ordering: .acquiring)
    // An error that nobody knows of is news to everybody.
    return now & Self.seen != 0 ? now : 0
  }

  /// The error that was noted since `cursor` was taken or checked, if any.
  borrowing func check(_ cursor: borrowing Atomic<UInt64>) -> Errno? {
    let since = cursor.load(ordering: .relaxed)
    var now = word.load(ordering: .acquiring)
    if now == since { return nil }
    while now & Self.seen == 0 && now & Self.errnoMask != 0 {
      let (done, current) = word.weakCompareExchange(
        expected: now, desired: now | Self.seen, ordering: .acquiringAndReleasing)
      now = done ? now | Self.seen : current
    }
    // Of two checks of one cursor at a time one reports.
    if !cursor.compareExchange(expected: since, desired: now, ordering: .relaxed).exchanged {
      return nil
    }
    return now & Self.errnoMask == 0 ? nil : Errno(rawValue: Int32(now & Self.errnoMask))
  }
}
