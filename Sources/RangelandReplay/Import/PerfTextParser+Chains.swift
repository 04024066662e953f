// SPDX-License-Identifier: Apache-2.0
//
// The call chains that `perf script` prints below an event: a line a function, the innermost first.
//
// Source: perf 6.1's `sample__fprintf_callchain`: a tab, the address in hexadecimal, the function and, in parentheses,
// the file that it is in.

/// A chain whose lines are being read.
struct ChainDraft {
  /// The lock's event that it belongs to; nil: an event whose chain a recording does not hold.
  var owner: Int?
  var frames: [UInt32] = []
  /// Numbers of frames by what the line says behind the address.
  var known: [String: UInt32] = [:]
}

extension PerfTextParser {
  /// One function: `ADDRESS NAME[+OFFSET] (FILE)`, behind the tab.
  mutating func frame(_ cursor: inout LineCursor) throws(LineProblem) {
    guard let address = cursor.bareHexadecimal(), cursor.isAtEnd || cursor.skip(0x20) else {
      throw LineProblem(
        expected: "a function of a call chain, `ADDRESS NAME (FILE)`, behind a tab")
    }
    guard chain.owner != nil else { return }
    // The kernel's half of the addresses.
    let isKernel = address >> 63 == 1
    let rest = (isKernel ? "k" : "u") + cursor.rest
    if let number = chain.known[rest] {
      chain.frames.append(number)
      return
    }
    let number = text.chains.frame(Self.frame(rest.dropFirst(), isKernel: isKernel))
    chain.known[rest] = number
    chain.frames.append(number)
  }

  /// Ends the chain at hand: the event that it stands below gets it.
  mutating func finishChain() {
    guard let owner = chain.owner else { return }
    if let number = text.chains.chain(chain.frames) {
      text.events[owner].payload |= (number + 1) << TextEvent.lockChainShift
    }
    chain.owner = nil
    chain.frames.removeAll(keepingCapacity: true)
  }

  /// `NAME[+OFFSET] (FILE)`, where a name may hold spaces and parentheses (C++), and a file a remark in parentheses.
  private static func frame(_ text: Substring, isKernel: Bool) -> CallChains.Frame {
    var name = text
    var file: Substring = ""
    if text.last == ")", let open = beginningOfFile(text) {
      name = text[..<open]
      file = text[open...].dropFirst(2).dropLast()
    }
    if let plus = name.lastIndex(of: "+"), name[plus...].hasPrefix("+0x"),
      name[plus...].dropFirst(3).allSatisfy(\.isHexDigit)
    {
      name = name[..<plus]
    }
    while name.last == " " { name = name.dropLast() }
    return CallChains.Frame(
      function: name.isEmpty ? "[unknown]" : String(name),
      module: isKernel && file == "[kernel.kallsyms]" ? "[kernel]" : lastComponent(String(file)),
      isKernel: isKernel)
  }

  /// Where ` (FILE)` begins: at the last ` (` that the closing parenthesis at the end belongs to.
  private static func beginningOfFile(_ text: Substring) -> Substring.Index? {
    var depth = 0
    var index = text.endIndex
    while index > text.startIndex {
      index = text.index(before: index)
      if text[index] == ")" { depth += 1 }
      if text[index] == "(" { depth -= 1 }
      if depth == 0 {
        guard index > text.startIndex else { return nil }
        let space = text.index(before: index)
        return text[space] == " " ? space : nil
      }
    }
    return nil
  }
}
