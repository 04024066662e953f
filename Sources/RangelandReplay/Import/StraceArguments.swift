// SPDX-License-Identifier: Apache-2.0
//
// The arguments of a call as strace writes them: numbers, names joined by `|`, and what stands for memory.

extension StraceParser {
  /// How the arguments on a line end.
  enum ArgumentsEnd {
    /// With their parenthesis; the result follows.
    case whole
    /// The line breaks off: another thread's line came between. The rest is `resumed` later.
    case unfinished
    /// strace was interrupted and let the thread go; there is no rest.
    case detached
  }

  /// Reads arguments up to the parenthesis behind them, or to the word that breaks the line off.
  func arguments(
    of call: inout OpenCall, _ cursor: inout LineCursor
  ) throws(LineProblem) -> ArgumentsEnd {
    var number = 0
    while true {
      cursor.skipSpaces()
      if cursor.skip(0x29) { return .whole }
      if cursor.skip("<unfinished ...>") { return .unfinished }
      if cursor.skip("<detached ...>") { return .detached }
      let range = cursor.argument()
      guard !cursor.isAtEnd || !range.isEmpty else {
        throw LineProblem(
          expected: "`)` or `<unfinished ...>` behind the arguments of \(call.kind.name)")
      }
      if !range.isEmpty { try take(cursor.string(range), number, &call) }
      number += 1
      // What is neither a comma nor one of the three ends above would be met for ever.
      let ends = cursor.peek == 0x29 || cursor.peek == 0x3c
      guard cursor.skip(0x2c) || (ends && !range.isEmpty) else {
        throw LineProblem(
          expected: "`)` or `<unfinished ...>` behind the arguments of \(call.kind.name)")
      }
    }
  }

  private func take(
    _ argument: String, _ number: Int, _ call: inout OpenCall
  ) throws(LineProblem) {
    switch call.kind {
    case .clone, .clone3:
      if argument.contains("CLONE_THREAD") { call.makesThread = true }
      // The kernel's order is another one than strace's, which names them.
      let names = [
        "flags=": 0, "child_stack=": 1, "parent_tid=": 2, "child_tidptr=": 3, "tls=": 4,
      ]
      guard call.kind == .clone else {
        if number == 1, let size = UInt64(argument) { call.arguments[1] = size }
        return
      }
      for (name, index) in names where argument.hasPrefix(name) {
        if let value = Self.value(String(argument.dropFirst(name.count))) {
          call.arguments[index] = value
        }
      }
      return
    case .execve:
      if number == 0, argument.hasPrefix("\"") {
        call.path = String(argument.dropFirst().prefix { $0 != "\"" })
      }
      return
    default: break
    }
    guard number < call.kind.argumentCount else { return }
    // Memory: what the kernel wrote or read there, not where.
    if let first = argument.first, "[{\"".contains(first) { return }
    var argument = Substring(argument)
    if call.kind == .mmap, number == 4, let less = argument.firstIndex(of: "<") {
      call.path = String(argument[argument.index(after: less)...].prefix { $0 != ">" })
    }
    if call.kind.arguments[number] == .signed, let less = argument.firstIndex(of: "<") {
      argument = argument[..<less]
    }
    guard let value = Self.value(String(argument)) else {
      throw LineProblem(
        expected: "a number or known names as argument \(number + 1) of \(call.kind.name), not "
          + "`\(argument)`")
    }
    call.arguments[number] = value
  }

  /// A number, or names and numbers joined by `|`; comments are passed over.
  static func value(_ text: String) -> UInt64? {
    var sum: UInt64 = 0
    for part in text.split(separator: "|", omittingEmptySubsequences: false) {
      var part = part
      if let comment = part.firstRange(of: "/*") { part = part[..<comment.lowerBound] }
      while part.last == " " { part.removeLast() }
      while part.first == " " { part.removeFirst() }
      if let shift = part.firstRange(of: "<<") {
        guard let left = word(part[..<shift.lowerBound]),
          let right = word(part[shift.upperBound...]), right < 64
        else { return nil }
        sum |= left << right
      } else {
        guard let word = word(part) else { return nil }
        sum |= word
      }
    }
    return sum
  }

  private static func word(_ text: Substring) -> UInt64? {
    if text.hasPrefix("0x") { return UInt64(text.dropFirst(2), radix: 16) }
    if text.first == "-" { return Int64(text).map { UInt64(bitPattern: $0) } }
    if text.first?.isNumber == true { return UInt64(text) }
    return StraceNames.constants[String(text)]
  }
}

extension LineCursor {
  /// `NAME(`: the name, if a parenthesis follows it.
  mutating func callName() -> String? {
    let start = offset
    while let byte = peek,
      byte == 0x5f || (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte)
    {
      move(to: offset + 1)
    }
    let range = start..<offset
    guard !range.isEmpty, skip(0x28) else {
      move(to: start)
      return nil
    }
    return string(range)
  }

  /// Goes on to the comma or parenthesis behind an argument, or to ` <`, and returns what it passed
  /// without spaces at its end.
  mutating func argument() -> Range<Int> {
    let start = offset
    var depth = 0
    scan: while let byte = peek {
      switch byte {
      case 0x22: skipQuoted()
      // `/* comment */`
      case 0x2f where skip("/*"):
        if !skip(past: "*/") { moveToEnd() }
        continue scan
      case 0x3c:
        // `1<<2` is a shift; `3</path>` a descriptor's path; ` <unfinished` and ` <detached` the end.
        if skip("<<") { continue scan }
        if offset > start, bytes((offset - 1)..<offset)[0] == 0x20 { break scan }
        if !skip(past: ">") { moveToEnd() }
        continue scan
      case 0x28, 0x5b, 0x7b: depth += 1
      case 0x5d, 0x7d: depth -= 1
      case 0x29:
        if depth <= 0 { break scan }
        depth -= 1
      case 0x2c where depth <= 0: break scan
      default: break
      }
      move(to: offset + 1)
    }
    var end = offset
    while end > start, bytes((end - 1)..<end)[0] == 0x20 { end -= 1 }
    return start..<end
  }

  /// From one quotation mark to the byte of the other.
  private mutating func skipQuoted() {
    move(to: offset + 1)
    while let byte = peek, byte != 0x22 { move(to: offset + (byte == 0x5c ? 2 : 1)) }
  }

  /// `SECONDS.MICROSECONDS` as nanoseconds.
  mutating func timeWithoutColon() -> UInt64? {
    let start = offset
    if let seconds = decimal(), seconds < 1 << 33, skip(0x2e), case let first = offset,
      let fraction = decimal(), case let digits = offset - first, digits <= 9
    {
      var nanoseconds = fraction
      for _ in digits..<9 { nanoseconds *= 10 }
      return seconds * 1_000_000_000 + nanoseconds
    }
    move(to: start)
    return nil
  }

  /// `<SECONDS.MICROSECONDS>` at the end of the line, in nanoseconds.
  mutating func durationAtEnd() -> UInt64? {
    var found: UInt64?
    while skip(past: " <") {
      if let time = timeWithoutColon(), skip(0x3e) { found = time }
    }
    return found
  }
}
