// SPDX-License-Identifier: Apache-2.0
//
// What the programmer reads when a wait cannot end.

#if RANGELOCKS_CHECKED
  extension RequestTable {
    /// Ends the process with both call sites of each wait.
    func report(_ circle: [Step]) -> Never {
      let first = circle[0]
      let who = RequestOwner.description(first.waiting.pointee.owner)
      if circle.count == 1 {
        fatalError(
          """
          RangeLock: \(who) would wait for itself.
            It asks for \(first.waiting.pointee.description),
            and holds \(first.blocker.pointee.description).
          \(Self.advice(first))
          """)
      }
      var lines = ["RangeLock: deadlock: \(who) would wait for itself, through others."]
      for step in circle {
        let (waiting, blocker) = (step.waiting.pointee, step.blocker.pointee)
        lines.append(
          "  \(RequestOwner.description(waiting.owner)) asks for \(waiting.description),")
        lines.append(
          "    behind \(RequestOwner.description(blocker.owner)), which "
            + "\(blocker.state == .holding ? "holds" : "waits for") \(blocker.description).")
      }
      lines.append(Self.adviceAgainstCircles(circle))
      fatalError(lines.joined(separator: "\n"))
    }

    private static func advice(_ step: Step) -> String {
      let transfer =
        "If another thread or task is to release that hold, say so with makeTransferable()."
      if step.waiting.pointee.state == .upgrading {
        return "Release the other hold before the upgrade. \(transfer)"
      }
      return """
        Release the hold first, or ask for all at once with lock(overAll:); to write where it reads, take \
        .upgradeableRead and call upgrade(). \(transfer)
        """
    }

    private static func adviceAgainstCircles(_ circle: [Step]) -> String {
      let (first, last) = (circle[0].waiting.pointee, circle[circle.count - 1].blocker.pointee)
      if first.lock == last.lock, first.piece.range.overlaps(last.piece.range) {
        return """
          To read once more what one reads already waits behind a writer that came between: keep the first hold and \
          do not ask again.
          """
      }
      return """
        Ask for all ranges at once with lock(overAll:), or in one order everywhere; against the order only try, \
        or set a deadline. Holds that others release are to be made transferable: makeTransferable().
        """
    }
  }
#endif
