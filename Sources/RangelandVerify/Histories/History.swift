// SPDX-License-Identifier: Apache-2.0
//
// What threads did with one space at the same time, and what they saw of it.

/// A call with the instants of its beginning and its end.
struct HistoryCall: Sendable {
  /// With absolute addresses; its thread is the one that made it.
  var call: VerifyCall
  var outcome: VerifyOutcome
  /// Numbers that all threads draw in one order: a call that ended before another began has the smaller ones.
  var began: Int
  var ended: Int
}

extension KernelProcess.AddressPair {
  /// Of a history's window: where its shared memory stands, which threads map a second time in the window.
  var sharedMemory: KernelProcess.AddressPair {
    let start = end + 256 * 4096
    return KernelProcess.AddressPair(
      start: start, end: start + UInt64(PageModel.memoryPages) * 4096)
  }
}

/// A history: calls of several threads that overlap, from a known state to another.
struct History: Sendable {
  /// The pages that the calls work on; everything else is taken.
  var window: KernelProcess.AddressPair
  /// Made one after the other before the threads began.
  var prologue: [VerifyCall] = []
  /// By thread, in its order.
  var threads: [[HistoryCall]] = []
  /// The pages when all had ended.
  var final: PageModel

  /// The calls as they began, for a reader.
  var text: String {
    let base = window.start
    func line(_ call: VerifyCall) -> String {
      func named(_ address: VerifyAddress) -> VerifyAddress {
        address.offset >= window.start && address.offset < window.sharedMemory.end
          ? VerifyAddress(.high, address.offset - base) : address
      }
      var call = call
      call.address = named(call.address)
      call.target = named(call.target)
      return "\(call)"
    }
    var text = prologue.map { "       before  \(line($0))\n" }.joined()
    for call in threads.joined().sorted(by: { $0.began < $1.began }) {
      let times = "\(call.began)...\(call.ended)"
      var outcome = "\(call.outcome)"
      if call.outcome.result >= Int64(base), call.outcome.result < Int64(window.end) {
        outcome = "high+\(hex(UInt64(call.outcome.result) - base))"
      }
      text += String(repeating: " ", count: max(0, 13 - times.count)) + times
      text += "  \(line(call.call)) = \(outcome)\n"
    }
    return text + "        after  \(final)\n"
  }
}
