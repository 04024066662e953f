// SPDX-License-Identifier: Apache-2.0
//
// The kernel's side: the helper process, started and asked.
//
// Guarantee: a helper that dies or hangs is an error with a reason, never a wait without end; it ends when this
//   object or this process ends.
// Mechanism: shared memory and futexes (KernelProtocol.h). Every wait is bounded and looks whether the
//   process still lives.

import CKernelProtocol
import Glibc
import SystemPackage

/// The running kernel, behind a process whose mappings are a script's alone. For one thread at a time.
public final class KernelProcess {
  private let channel: UnsafeMutablePointer<kp_channel>
  private let process: pid_t
  private var sequence: UInt32 = 0
  private var isAlive = true
  /// Mappings outside the windows, known after the first reset.
  private var outside: Int64?
  private var baseline = VerifySizes()
  /// Bytes around a call's range in which mappings are listed after it.
  static let margin: UInt64 = 16 * 4096

  /// The windows, by `VerifyWindow.rawValue`.
  public let windows: [AddressPair]

  public struct AddressPair: Sendable, Hashable {
    public var start: UInt64
    public var end: UInt64
  }

  /// Starts a helper.
  ///
  /// - Throws: when there is none, or it cannot run here: `PROCMAP_QUERY` needs Linux 6.11.
  public init() throws(VerifyError) {
    let path = try Self.helperPath()
    let descriptor = kp_make_channel()
    if descriptor < 0 { throw VerifyError("memfd_create: \(Errno(rawValue: -descriptor))") }
    let memory = mmap(
      nil, MemoryLayout<kp_channel>.size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
    guard let memory, memory != MAP_FAILED else {
      close(descriptor)
      throw VerifyError("the channel cannot be mapped: \(Errno(rawValue: errno))")
    }
    channel = memory.assumingMemoryBound(to: kp_channel.self)
    var child: pid_t = 0
    let status = path.withPlatformString { path in
      "\(descriptor)".withPlatformString { number in
        "\(getpid())".withPlatformString { parent in
          var arguments = [path, number, parent].map { UnsafeMutablePointer(mutating: $0) } + [nil]
          var environment: [UnsafeMutablePointer<CChar>?] = [nil]
          return posix_spawn(&child, path, nil, nil, &arguments, &environment)
        }
      }
    }
    close(descriptor)
    guard status == 0 else {
      munmap(memory, MemoryLayout<kp_channel>.size)
      throw VerifyError("\(path) cannot be started: \(Errno(rawValue: status))")
    }
    process = child
    var tries = 0
    while kp_wait(&channel.pointee.state, UInt32(KP_STARTING), 100) == UInt32(KP_STARTING) {
      tries += 1
      if tries > 300 || Self.hasEnded(child) { break }
    }
    windows = withUnsafeBytes(of: &channel.pointee.windows) {
      $0.bindMemory(to: kp_window.self).map { AddressPair(start: $0.start, end: $0.end) }
    }
    guard channel.pointee.state == UInt32(KP_READY) else {
      let message = withUnsafeBytes(of: &channel.pointee.message) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      end()
      throw VerifyError(
        "the kernel helper cannot run here: \(message.isEmpty ? "it ended" : message)")
    }
    try reset()
  }

  deinit { end() }

  /// Whether this kernel is too old to be the judge. A helper that is broken otherwise is no reason to skip.
  public static let lacksQuery: Bool = {
    do throws(VerifyError) {
      _ = try KernelProcess()
      return false
    } catch {
      return error.description.contains("PROCMAP_QUERY")
    }
  }()

  /// Ends the helper; again does nothing.
  private func end() {
    guard isAlive else { return }
    isAlive = false
    kill(process, SIGKILL)
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    munmap(channel, MemoryLayout<kp_channel>.size)
  }

  private static func hasEnded(_ process: pid_t) -> Bool {
    var information = siginfo_t()
    return waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT) == 0
      && information.si_signo == SIGCHLD
  }

  /// Beside the executable, where SwiftPM builds it.
  private static func helperPath() throws(VerifyError) -> FilePath {
    let folder = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX) + 1) {
      let length = readlink("/proc/self/exe", $0.baseAddress!, Int(PATH_MAX))
      $0[max(0, length)] = 0
      return FilePath(platformString: $0.baseAddress!).removingLastComponent()
    }
    let path = folder.appending("KernelHelper")
    guard path.withPlatformString({ access($0, X_OK) }) == 0 else {
      throw VerifyError(
        "there is no \(path): the helper is built with the package and stays beside the program")
    }
    return path
  }

  // MARK: requests

  private func post(_ operation: Int, _ arguments: [4 of UInt64], margin: UInt64) {
    channel.pointee.operation = UInt64(operation)
    channel.pointee.arguments.0 = arguments[0]
    channel.pointee.arguments.1 = arguments[1]
    channel.pointee.arguments.2 = arguments[2]
    channel.pointee.arguments.3 = arguments[3]
    channel.pointee.list_margin = margin
    sequence &+= 1
    kp_signal(&channel.pointee.request, sequence)
  }

  private func finish() throws(VerifyError) {
    var tries = 0
    let before = sequence &- 1
    while kp_wait(&channel.pointee.reply, before, 100) == before {
      tries += 1
      if Self.hasEnded(process) { throw VerifyError("the kernel helper has died") }
      if tries > 300 { throw VerifyError("the kernel helper has not answered for 30 s") }
    }
    if channel.pointee.result == KP_REFUSED {
      throw VerifyError("the call reaches beyond the windows: it was not performed")
    }
  }

  private static func operation(_ kind: VerifyCall.Kind) -> Int {
    switch kind {
    case .mmap: KP_MMAP
    case .munmap: KP_MUNMAP
    case .mprotect: KP_MPROTECT
    case .madvise: KP_MADVISE
    case .load: KP_LOAD
    case .store: KP_STORE
    }
  }

  private static func arguments(_ call: VerifyCall, _ address: UInt64) -> [4 of UInt64] {
    switch call.kind {
    case .mmap: [address, call.length, call.protection, call.flags]
    case .mprotect: [address, call.length, call.protection, 0]
    case .madvise: [address, call.length, call.flags, 0]
    default: [address, call.length, call.value, 0]
    }
  }

  /// Lets the helper begin with a call; `outcome` waits for it.
  func begin(_ call: VerifyCall, at address: UInt64) {
    post(
      Self.operation(call.kind), Self.arguments(call, address),
      margin: call.isAccess ? 0 : Self.margin)
  }

  /// The kernel's answer to the call that was begun.
  func outcome() throws(VerifyError) -> VerifyOutcome {
    try finish()
    // Field by field: the channel is large.
    if channel.pointee.signal != 0 {
      return VerifyOutcome(
        signal: channel.pointee.signal, code: channel.pointee.code,
        faultAddress: channel.pointee.fault_address)
    }
    return VerifyOutcome(result: channel.pointee.result)
  }

  /// The range in which mappings are compared after a call; `nil` = it has no place in a window.
  func near(_ call: VerifyCall, at address: UInt64, _ outcome: VerifyOutcome) -> AddressPair? {
    var range = kp_window()
    let found = kp_near(
      &channel.pointee.windows.0, UInt64(Self.operation(call.kind)), address, call.length,
      outcome.result, Self.margin, &range)
    return found != 0 ? AddressPair(start: range.start, end: range.end) : nil
  }

  /// The mappings that came with the last answer.
  var listed: [VerifyMapping] {
    UnsafeBufferPointer(start: kp_mappings(channel), count: Int(channel.pointee.mapping_count)).map
    {
      VerifyMapping(
        start: $0.start, end: $0.end, protection: $0.protection, isShared: $0.shared != 0,
        offset: $0.offset)
    }
  }

  /// All mappings of a window.
  func mappings(_ window: AddressPair) throws(VerifyError) -> [VerifyMapping] {
    post(KP_LIST, [window.start, window.end, 0, 0], margin: 0)
    try finish()
    return listed
  }

  /// Calls `body` for each page of a window that is mapped: whether it is shared, and the hash of its content
  /// when it is resident.
  func forEachPage(
    _ window: AddressPair, _ body: (UInt64, _ isShared: Bool, _ hash: UInt64?) -> Void
  ) throws(VerifyError) {
    post(KP_PAGES, [window.start, window.end, 0, 0], margin: 0)
    try finish()
    if channel.pointee.result < 0 {
      throw VerifyError("pages cannot be read: errno \(-channel.pointee.result)")
    }
    let pages = UnsafeBufferPointer(
      start: kp_pages(channel), count: Int(channel.pointee.page_count))
    for (i, page) in pages.enumerated() where page.state != UInt32(KP_UNMAPPED) {
      body(
        window.start + UInt64(i) * 4096, page.shared != 0,
        page.state == UInt32(KP_RESIDENT) ? page.hash : nil)
    }
  }

  /// Empties the windows, and checks that the last script left nothing outside them.
  func reset() throws(VerifyError) {
    post(KP_RESET, [0, 0, 0, 0], margin: 0)
    try finish()
    let count = channel.pointee.result
    if count < 0 || (outside ?? count) != count {
      throw VerifyError(
        "a script changed the helper's own mappings (\(count), not \(outside ?? 0))")
    }
    outside = count
    baseline = try absoluteSizes()
  }

  /// Whether a call stays inside the windows, whatever becomes of it.
  func isHarmless(_ call: VerifyCall) -> Bool {
    let address = resolve(call.address)
    if call.isAccess && ![1, 2, 4, 8].contains(call.length) { return false }
    let few = Self.arguments(call, address)
    let all: [UInt64] = [few[0], few[1], few[2], few[3], 0, 0]
    return kp_is_harmless(
      &channel.pointee.windows.0, UInt64(Self.operation(call.kind)), all) != 0
  }

  func resolve(_ address: VerifyAddress) -> UInt64 {
    guard let window = address.window else { return address.offset }
    return windows[window.rawValue].start &+ address.offset
  }

  // MARK: sizes

  /// The sizes of the windows' mappings.
  func sizes() throws(VerifyError) -> VerifySizes {
    var now = try absoluteSizes()
    now.virtual -= baseline.virtual
    now.data -= baseline.data
    now.executable -= baseline.executable
    now.residentAnonymous -= baseline.residentAnonymous
    return now
  }

  private func absoluteSizes() throws(VerifyError) -> VerifySizes {
    let descriptor = open("/proc/\(process)/status", O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { throw VerifyError("/proc/\(process)/status cannot be read") }
    defer { close(descriptor) }
    return withUnsafeTemporaryAllocation(byteCount: 8192, alignment: 8) { buffer in
      let count = read(descriptor, buffer.baseAddress!, 8192)
      var result = VerifySizes()
      for line in UnsafeRawBufferPointer(rebasing: buffer[..<max(0, count)]).split(separator: 10) {
        func pages(_ name: StaticString) -> Int? {
          let isIt = name.withUTF8Buffer { line.starts(with: $0) }
          guard isIt else { return nil }
          var kilobytes = 0
          for digit in line where digit >= 48 && digit <= 57 {
            kilobytes = kilobytes * 10 + Int(digit - 48)
          }
          return kilobytes / 4
        }
        if let n = pages("VmSize:") { result.virtual = n }
        if let n = pages("VmData:") { result.data = n }
        if let n = pages("VmExe:") { result.executable += n }
        if let n = pages("VmLib:") { result.executable += n }
        if let n = pages("RssAnon:") { result.residentAnonymous = n }
      }
      return result
    }
  }

  /// The kernel's release.
  public static let release: String = {
    var name = utsname()
    uname(&name)
    return withUnsafeBytes(of: &name.release) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }()

  /// Whether `RssAnon` is exact: kernels before 6.17 tell a sum that lags behind.
  static let tellsExactResidency: Bool = {
    let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
    return numbers.count == 2 && (numbers[0], numbers[1]) >= (6, 17)
  }()
}
