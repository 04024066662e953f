// SPDX-License-Identifier: Apache-2.0
//
// From a script that differs to the shortest that still does.
//
// Source: Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input" (2002): remove ever smaller
// pieces while the difference stays.

extension Judge {
  /// A shorter script that differs, and its difference. No single call can be taken from it, unless
  /// `limit` runs were not enough to find that out.
  ///
  /// - Returns: `nil` when the script does not differ when it is run again.
  func shrink(
    _ script: [VerifyCall], limit: Int = 3000
  ) throws(VerifyError) -> Differing? {
    // Everything after every call: what was noticed late is found where it began. From then on the script's end is early
    // enough, unless it shows only where the judge has read pages, which brings them in, while the script ran.
    let whole = try run(script, interval: 1)
    guard let difference = whole.difference else { return nil }
    var best: Differing = (whole.calls, difference)
    let interval = try run(whole.calls, interval: .max).difference == nil ? 1 : Int.max
    try shorten(&best, runs: limit - 2) { (calls) throws(VerifyError) in
      let run = try self.run(calls, interval: interval)
      return run.difference.map { (run.calls, $0) }
    }
    return best
  }

  typealias Differing = (calls: [VerifyCall], difference: VerifyDifference)

  /// Takes ever smaller pieces from a script as long as what is left still differs.
  ///
  /// - Parameter differing: the script, or its beginning, if it differs.
  func shorten(
    _ best: inout Differing, runs limit: Int,
    _ differing: ([VerifyCall]) throws(VerifyError) -> Differing?
  ) throws(VerifyError) {
    var runs = 0
    var size = max(1, best.calls.count / 2)
    while runs < limit {
      var removed = false
      var end = best.calls.count
      while end > 0 && runs < limit {
        let start = max(0, end - size)
        var shorter = best.calls
        shorter.removeSubrange(start..<end)
        // An empty script shows nothing to a reader.
        if !shorter.isEmpty {
          runs += 1
          if let found = try differing(shorter) {
            best = found
            removed = true
          }
        }
        end = min(start, best.calls.count)
      }
      if size == 1 && !removed { break }
      if !removed { size = max(1, size / 2) }
    }
  }
}
