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
  var known: [Function: UInt32] = [:]

  struct Function: Hashable {
    var text: String
    var isKernel: Bool
  }
}

extension PerfTextParser {
  /// Takes the line if it is a function of a chain: a tab, the address in 16 columns, and ` NAME[+OFFSET] (FILE)`.
  ///
  /// No thread's name looks like that: it has 15 characters at most.
  mutating func frame(_ line: inout LineCursor) -> Bool {
    guard line.peek == 0x09 else { return false }
    var cursor = line
    cursor.move(to: 1)
    cursor.skipSpaces()
    guard let address = cursor.bareHexadecimal(), cursor.offset == 17,
      cursor.isAtEnd || cursor.skip(0x20)
    else { return false }
    guard chain.owner != nil else { return true }
    // The kernel's half of the addresses.
    let key = ChainDraft.Function(text: cursor.rest, isKernel: address >> 63 == 1)
    let number =
      chain.known[key]
      ?? text.chains.frame(Self.frame(Substring(key.text), isKernel: key.isKernel))
    chain.known[key] = number
    chain.frames.append(number)
    return true
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
  private static func frame(_ line: Substring, isKernel: Bool) -> CallChains.Frame {
    var text = line
    if text.unicodeScalars.contains(where: { $0.value < 0x20 }) {
      // Of a line's end (CR) nothing stays; a terminal is not told what others cannot see.
      let scalars = text.unicodeScalars.filter { $0.value >= 0x20 }
      text = Substring(String(String.UnicodeScalarView(scalars)))
    }
    var name = text
    var file: Substring = ""
    if let open = text.openingOfLastParentheses, open > text.startIndex,
      case let space = text.index(before: open), text[space] == " "
    {
      name = text[..<space]
      file = text[open...].dropFirst().dropLast()
    }
    if let plus = name.lastIndex(of: "+"), name[plus...].hasPrefix("+0x"),
      name[plus...].dropFirst(3).allSatisfy(\.isHexDigit)
    {
      name = name[..<plus]
    }
    while name.last == " " { name = name.dropLast() }
    return CallChains.Frame(
      function: name.isEmpty ? CallChains.unknown : function(name, file),
      module: module(file), isKernel: isKernel)
  }

  /// The name; of code that was made at run time without the folders that such names tell of (node's have the script's).
  private static func function(_ name: Substring, _ file: Substring) -> String {
    guard file.hasSuffix(".map"), name.contains("/") else { return String(name) }
    return name.split(separator: " ", omittingEmptySubsequences: false).map { word in
      word.hasPrefix("/") || word.hasPrefix("file:") ? lastComponent(String(word)) : String(word)
    }.joined(separator: " ")
  }

  private static func module(_ file: Substring) -> String {
    switch file {
    case "[kernel.kallsyms]": "[kernel]"
    case "//anon": "[anonymous]"
    default: lastComponent(String(file))
    }
  }
}
