# A thin door: every target is one line into meson or a script.
.PHONY: all deps run test bench format lint clean
all: build/build.ninja
	@ninja -C build
build/build.ninja:
	@meson setup build
clean:
	rm -rf build
